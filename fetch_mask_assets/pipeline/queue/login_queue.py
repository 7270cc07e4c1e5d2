"""The login queue: receiving, deleting, releasing and sending messages, and its counts.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from threading import Lock
from typing import Any

import polars as pl

from fetch_mask_assets.aws import CONNECT_SECONDS, READ_SECONDS
from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.pipeline.queue.backlog import QueueDepth
from fetch_mask_assets.pipeline.queue.dead_letters import RedrivePolicy, RetentionPolicy
from fetch_mask_assets.pipeline.queue.drain import Drain
from fetch_mask_assets.pipeline.queue.limits import (
    MAX_RECEIVE,
    DrainEnd,
    DrainLimits,
    release_delay,
)
from fetch_mask_assets.pipeline.queue.sqs import attributes
from fetch_mask_assets.pipeline.queue.sqs.attributes import translate_errors
from fetch_mask_assets.pipeline.queue.sqs.batch_requests import BatchRequests, BatchResult
from fetch_mask_assets.pipeline.queue.sqs.client import SqsClient, connect_client
from fetch_mask_assets.pipeline.queue.sqs.delivery import Delivery, parse_deliveries
from fetch_mask_assets.settings import QueueTuning

_LOG = logging.getLogger(__name__)
_DEFAULTS = QueueTuning()


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The queue's URL, how many receivers read it and for how long messages stay hidden."""

    url: str
    receivers: int = _DEFAULTS.receivers
    wait_seconds: int = _DEFAULTS.wait_seconds
    visibility_seconds: int = _DEFAULTS.visibility_seconds
    max_attempts: int = 5
    client_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, url: str, tuning: QueueTuning) -> QueueSettings:
        """The settings of a queue by its URL and the numbers of the deployment."""
        return cls(url, tuning.receivers, tuning.wait_seconds, tuning.visibility_seconds)


@dataclass(frozen=True, slots=True)
class ReceiveResult:
    """The received messages as a frame of `RAW_SCHEMA`, and how the drain went."""

    raw: pl.DataFrame
    end: DrainEnd
    requests: int
    seconds: float


class LoginQueue:
    """A connection to the login queue, with the messages that it received and has not settled.

    A message is settled when it is deleted or released; `close` releases the others.
    """

    def __init__(self, client: SqsClient, settings: QueueSettings) -> None:
        """Takes a connected client; `connect_queue` makes one."""
        self._client = client
        self._settings = settings
        self._requests = BatchRequests(client, settings.url, settings.receivers)
        self._ahead: ReceiveResult | None = None
        self._unsettled: dict[str, tuple[str, int]] = {}
        self._lock = Lock()

    @property
    def is_fifo(self) -> bool:
        """Return whether it is a FIFO queue, whose name ends with .fifo."""
        return self._settings.url.endswith(".fifo")

    def depth(self) -> QueueDepth:
        """The queue's approximate counts.

        Raises:
            QueueError: the queue cannot be read.
        """
        return attributes.read_depth(self._client, self._settings.url)

    def retention(self) -> RetentionPolicy:
        """The queue's retention and redrive policy.

        Raises:
            QueueError: the queue cannot be read.
        """
        return attributes.read_retention(self._client, self._settings.url)

    def dead_letter_url(self, policy: RedrivePolicy) -> str:
        """The URL of the dead-letter queue that a redrive policy names.

        Raises:
            QueueError: there is no such queue, or the lookup is refused.
        """
        return attributes.find_dead_letter_url(self._client, policy)

    def is_empty(self, limits: DrainLimits) -> bool:
        """Whether the queue has no message: by its counts, which lag, and by receives.

        What these receives return all the same is the result of the next `receive`.

        Raises:
            QueueError: the queue cannot be read.
        """
        depth = self.depth()
        if depth.waiting or depth.hidden:
            return False
        ahead = self.receive(limits)
        if ahead.raw.is_empty():
            return True
        self._ahead = ahead
        return False

    def receive(self, limits: DrainLimits) -> ReceiveResult:
        """Receives with several long polls at once until a limit is reached.

        Raises:
            QueueError: a receive failed; what was received is released at close.
        """
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        drain = Drain(self._receive, limits)
        drain.run(self._settings.receivers)
        return ReceiveResult(drain.received.whole(), drain.end, drain.requests, drain.seconds)

    def delete(self, message_ids: Iterable[str]) -> BatchResult:
        """Deletes some of the unsettled messages, each by its newest receipt handle.

        Entries that the service fails, or does not name in its answer, are retried. A message that
        stays on the queue comes back, and the ledger recognises it.

        Raises:
            QueueError: a request was refused as a whole; the other requests were still sent.
        """
        messages = [self._unsettled.pop(each) for each in set(message_ids)]
        entries = ({"ReceiptHandle": handle} for handle, _ in messages)
        return self._requests.send("delete_message_batch", entries)

    def release(self, delay: Callable[[int], int] = release_delay) -> BatchResult:
        """Releases all unsettled messages, each after a delay that grows with its receives."""
        entries = [
            {"ReceiptHandle": handle, "VisibilityTimeout": delay(receive_count)}
            for handle, receive_count in self._unsettled.values()
        ]
        self._ahead = None
        self._unsettled.clear()
        return self._requests.send("change_message_visibility_batch", entries)

    def release_messages(self, message_ids: Iterable[str], seconds: int) -> BatchResult:
        """Releases some of the unsettled messages; they are visible again after the seconds."""
        messages = [self._unsettled.pop(each) for each in set(message_ids)]
        return self._change_visibility(messages, seconds)

    def extend_visibility(self, seconds: int) -> BatchResult:
        """Hides all unsettled messages for so many seconds from now."""
        return self._change_visibility(self._unsettled.values(), seconds)

    def send(self, bodies: Iterable[str]) -> Iterator[BatchResult]:
        """Sends each body as a message; yields the result of each request.

        Raises:
            QueueError: a request was refused as a whole.
        """
        entries = ({"MessageBody": body} for body in bodies)
        return self._requests.send_in_order("send_message_batch", entries)

    def close(self) -> None:
        """Releases all unsettled messages and closes the connections."""
        try:
            self.release_or_warn()
        finally:
            self._client.close()

    def _change_visibility(self, messages: Iterable[tuple[str, int]], seconds: int) -> BatchResult:
        entries = [
            {"ReceiptHandle": handle, "VisibilityTimeout": seconds} for handle, _ in messages
        ]
        return self._requests.send("change_message_visibility_batch", entries)

    def release_or_warn(self) -> None:
        """Releases all unsettled messages at the end of a run; logs a failure of it."""
        # An error here would hide the error of a run that is already failing.
        if not self._unsettled:
            return
        try:
            result = self.release()
        except QueueError as error:
            _LOG.warning(
                "messages were not released, they return after the visibility timeout: %s", error
            )
            return
        _LOG.warning("released %d messages to the queue", result.succeeded)

    def _receive(self, max_messages: int) -> list[Delivery]:
        with translate_errors("ReceiveMessage"):
            answer = self._client.receive_message(
                QueueUrl=self._settings.url,
                MaxNumberOfMessages=min(max_messages, MAX_RECEIVE),
                WaitTimeSeconds=self._settings.wait_seconds,
                VisibilityTimeout=self._settings.visibility_seconds,
                MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
            )
        deliveries = parse_deliveries(answer)
        self._add_unsettled(deliveries)
        return deliveries

    def _add_unsettled(self, deliveries: Iterable[Delivery]) -> None:
        # Receivers answer in any order: the newest of two handles has the higher receive count.
        with self._lock:
            for delivery in deliveries:
                held = (delivery.receipt_handle, delivery.receive_count)
                known = self._unsettled.get(delivery.message_id, held)
                self._unsettled[delivery.message_id] = max(held, known, key=itemgetter(1))


@contextmanager
def connect_queue(settings: QueueSettings) -> Iterator[LoginQueue]:
    """A connection to the queue; at the end it releases all unsettled messages.

    Raises:
        QueueError: the AWS settings do not allow a client to be made.
    """
    with translate_errors("connecting"):
        client = connect_client(
            settings.client_options,
            connect_seconds=CONNECT_SECONDS,
            read_seconds=settings.wait_seconds + READ_SECONDS,
            max_attempts=settings.max_attempts,
        )
    with closing(LoginQueue(client, settings)) as queue:
        yield queue
