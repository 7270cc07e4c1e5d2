"""A trickle of sample messages into the queue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

from fetch_mask_assets.local_stack import sqs
from fetch_mask_assets.local_stack.samples import sample_bodies
from fetch_mask_assets.local_stack.state import State

_SECONDS_BETWEEN = 2.0
_MESSAGES_AT_ONCE = 5


class Traffic:
    """Sends a few messages every two seconds."""

    def __init__(self, state: State, seed: int) -> None:
        """Connects to the queue."""
        self._sqs = sqs.client(state)
        self._queue_url = sqs.queue_url(state)
        self._bodies: Iterator[str] = sample_bodies(seed)
        self._next = 0.0

    def trickle(self) -> None:
        """Sends the next few messages if two seconds have passed."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS_BETWEEN
        # A failed send must not end the session: the next one may succeed.
        with suppress(BotoCoreError, ClientError):
            self._send()

    def _send(self) -> None:
        bodies = islice(self._bodies, _MESSAGES_AT_ONCE)
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)
        ]
        self._sqs.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
