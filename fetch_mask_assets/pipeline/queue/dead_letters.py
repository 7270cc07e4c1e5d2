"""The dead-letter queue: where a redrive policy sends messages, and whether it can be trusted.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from fetch_mask_assets.pipeline.contract.body_profile import body_profile

KILLS = "kills the process that masks it"

MIN_RECEIVES = 3
"""With fewer, an outage or two of a second send good messages to the dead-letter queue."""


@dataclass(frozen=True, slots=True)
class RedrivePolicy:
    """What a queue says of its dead-letter queue, and how often a message may be received."""

    queue_name: str
    account: str
    max_receives: int


@dataclass(frozen=True, slots=True)
class QueueTerms:
    """For how many seconds a queue keeps a message, and what it does with unlucky ones."""

    retention_seconds: int
    redrive: RedrivePolicy | None


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """What may be said of the messages on a dead-letter queue without saying any of them."""

    looked_at: int
    oldest: datetime | None
    newest: datetime | None
    shapes: dict[str, int]


def redrive_policy(text: str | None) -> RedrivePolicy | None:
    """The policy that SQS gives as JSON, or None if there is none.

    Raises:
        ValueError: the text is no redrive policy.
    """
    if not text:
        return None
    try:
        policy = json.loads(text)
        *_, account, name = policy["deadLetterTargetArn"].split(":")
        return RedrivePolicy(name, account, int(policy["maxReceiveCount"]))
    except (KeyError, TypeError, AttributeError):
        raise ValueError("no redrive policy") from None


def weaknesses(login: QueueTerms, dead_retention_seconds: int) -> Iterator[str]:
    """What in the terms of the two queues would lose messages, or give up good ones."""
    if login.redrive and login.redrive.max_receives < MIN_RECEIVES:
        yield (
            f"maxReceiveCount is {login.redrive.max_receives}: set it to {MIN_RECEIVES} or more,"
            " 5 is usual; otherwise a short outage sends good messages to the dead-letter queue."
        )
    if dead_retention_seconds <= login.retention_seconds:
        yield (
            f"the dead-letter queue keeps a message for {dead_retention_seconds} seconds since it"
            f" was sent, the login queue for {login.retention_seconds}: set the dead-letter queue's"
            " MessageRetentionPeriod higher, or a message may be gone before anyone looks."
        )


def described(raw: pl.DataFrame, unfit: Collection[int] = ()) -> DeadLetters:
    """The count, ages and shapes of raw messages.

    Args:
        raw: a frame of `RAW_SCHEMA`.
        unfit: its lines that must not be decoded here.
    """
    oldest, newest = raw["sent_at"].min(), raw["sent_at"].max()
    lines = raw.select(pl.int_range(pl.len()), "message_id", "body").iter_rows()
    shapes = {id_: KILLS if line in unfit else body_profile(body) for line, id_, body in lines}
    return DeadLetters(
        looked_at=len(shapes),
        oldest=oldest if isinstance(oldest, datetime) else None,
        newest=newest if isinstance(newest, datetime) else None,
        shapes=dict(Counter(shapes.values()).most_common()),
    )
