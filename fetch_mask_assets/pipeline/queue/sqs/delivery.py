"""A delivery: one received message, checked against the digest that SQS sends with it.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_Message.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.pipeline.contract.message_body import storable_text
from fetch_mask_assets.pipeline.queue.sqs.protocol import NOT_SQS


class Delivery(NamedTuple):
    """One received message. `sent_at` is in milliseconds of Unix time."""

    message_id: str
    receipt_handle: str
    sent_at: int
    receive_count: int
    body: str

    def __repr__(self) -> str:
        """Without the body, and without the handle that deletes the message."""
        return f"Delivery({self.message_id!r}, ...)"

    @property
    def body_bytes(self) -> int:
        """The length of the body in UTF-8."""
        return len(self.body if self.body.isascii() else self.body.encode())


def parse_deliveries(answer: Mapping[str, Any]) -> list[Delivery]:
    """The messages of an answer to ReceiveMessage.

    Raises:
        QueueError: a message lacks a part, or its body is not the one that SQS stored.
    """
    try:
        return [_delivery(message) for message in answer.get("Messages") or ()]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise QueueError(
            f"SQS ReceiveMessage answers with messages that lack a part: {NOT_SQS}"
        ) from None


def require_digest(operation: str, body: str, digest: str | None) -> None:
    """Compares a body with the MD5 digest that SQS made of it.

    Raises:
        QueueError: they differ.
    """
    # As SQS, which takes no lone surrogates; emulators do.
    ours = hashlib.md5(body.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    if ours != digest:
        raise QueueError(
            f"SQS {operation}: the MD5 digest of a message body is not the one that SQS sent. The"
            " body was changed on the way: look for a proxy between this process and"
            " AWS_ENDPOINT_URL."
        )


def _delivery(message: Mapping[str, Any]) -> Delivery:
    body, attributes = message["Body"], message["Attributes"]
    require_digest("ReceiveMessage", body, message["MD5OfBody"])
    return Delivery(
        _text(message["MessageId"]),
        _text(message["ReceiptHandle"]),
        int(attributes["SentTimestamp"]),
        int(attributes["ApproximateReceiveCount"]),
        storable_text(body),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
