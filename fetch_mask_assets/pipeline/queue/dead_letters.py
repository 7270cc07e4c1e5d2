"""The dead-letter queue: its redrive policy, problems with it, and a summary of its messages.

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
    """The dead-letter queue of a queue, and the receives after which a message moves there."""

    queue_name: str
    account: str
    max_receives: int


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """The seconds for which a queue keeps a message, and its redrive policy."""

    retention_seconds: int
    redrive: RedrivePolicy | None


@dataclass(frozen=True, slots=True)
class DeadLetterSummary:
    """Counts, ages and body profiles of a sample of dead letters; no value of any of them."""

    sampled: int
    oldest: datetime | None
    newest: datetime | None
    profiles: dict[str, int]


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


def redrive_problems(login: RetentionPolicy, dead_retention_seconds: int) -> Iterator[str]:
    """Settings of the two queues by which messages would be lost, or good ones given up."""
    if login.redrive and login.redrive.max_receives < MIN_RECEIVES:
        yield (
            f"maxReceiveCount is {login.redrive.max_receives}: set it to {MIN_RECEIVES} or more,"
            " 5 is usual; otherwise a short outage sends good messages to the dead-letter queue."
        )
    if dead_retention_seconds <= login.retention_seconds:
        yield (
            f"the dead-letter queue keeps a message for {dead_retention_seconds} seconds since it"
            f" was sent, the login queue for {login.retention_seconds}: set the dead-letter queue's"
            " MessageRetentionPeriod higher, or SQS may delete a dead letter soon after it arrives."
        )


def summarize(raw: pl.DataFrame, poison: Collection[int] = ()) -> DeadLetterSummary:
    """The count, ages and body profiles of raw messages.

    Args:
        raw: a frame of `RAW_SCHEMA`.
        poison: its rows that must not be decoded in this process.
    """
    oldest, newest = raw["sent_at"].min(), raw["sent_at"].max()
    rows = raw.select(pl.int_range(pl.len()), "message_id", "body").iter_rows()
    profiles = {id_: KILLS if row in poison else body_profile(body) for row, id_, body in rows}
    return DeadLetterSummary(
        sampled=len(profiles),
        oldest=oldest if isinstance(oldest, datetime) else None,
        newest=newest if isinstance(newest, datetime) else None,
        profiles=dict(Counter(profiles.values()).most_common()),
    )
