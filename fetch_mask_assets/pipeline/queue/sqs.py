"""The login queue on SQS: `depth`, `terms`, `receive`, `delete`, `release`, `send`.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter, not_
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import boto3
import polars as pl
from botocore.config import Config
from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from fetch_mask_assets.aws import (
    CONNECT_SECONDS,
    READ_SECONDS,
    silence_boto,
    translate_aws_errors,
)
from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.pipeline.batch.frames import RAW_SCHEMA
from fetch_mask_assets.pipeline.contract.message_body import storable_text
from fetch_mask_assets.pipeline.queue.backlog import QueueDepth
from fetch_mask_assets.pipeline.queue.dead_letters import QueueTerms, RedrivePolicy, redrive_policy
from fetch_mask_assets.pipeline.queue.limits import (
    MAX_RECEIVE,
    DrainEnd,
    DrainLimits,
    release_delay,
)
from fetch_mask_assets.pipeline.queue.receivers import Drain
from fetch_mask_assets.settings import QueueTuning

if TYPE_CHECKING:  # the stubs are for the type checker alone and are not installed with us
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_LOG = logging.getLogger(__name__)
_BATCH = 10
_BATCH_BYTES = 2**20
_ENTRY_ATTEMPTS = 4
_DEFAULTS = QueueTuning()

Entry = dict[str, Any]
"""One entry of a batch request, as boto3 takes it; `Id` tells entries apart in the answer."""

Operation = Literal["delete_message_batch", "change_message_visibility_batch", "send_message_batch"]


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
    """What one drain received, and why it ended."""

    raw: pl.DataFrame
    end: DrainEnd
    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How many entries of a batch request took effect, and how many did not."""

    done: int
    left: int


class LoginQueue:
    """A connection to the login queue that knows which messages it holds.

    What it received and neither deleted nor released, it hands back when it is closed.
    """

    def __init__(self, client: SQSClient, settings: QueueSettings) -> None:
        """Takes a connected client; `connect_queue` makes one."""
        self._client = client
        self._settings = settings
        self._held: dict[str, tuple[str, int]] = {}
        self._holding = Lock()

    def depth(self) -> QueueDepth:
        """The queue's approximate counts.

        Raises:
            QueueError: the queue cannot be read.
        """
        with _translate_errors("GetQueueAttributes"):
            answer = self._client.get_queue_attributes(
                QueueUrl=self._settings.url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                    "ApproximateNumberOfMessagesDelayed",
                ],
            )
        attributes = answer.get("Attributes", {})
        return QueueDepth(
            waiting=_number(attributes, "ApproximateNumberOfMessages"),
            in_flight=_number(attributes, "ApproximateNumberOfMessagesNotVisible"),
            delayed=_number(attributes, "ApproximateNumberOfMessagesDelayed"),
        )

    def terms(self) -> QueueTerms:
        """For how long the queue keeps messages, and its redrive policy.

        Raises:
            QueueError: the queue cannot be read.
        """
        with _translate_errors("GetQueueAttributes"):
            answer = self._client.get_queue_attributes(
                QueueUrl=self._settings.url,
                AttributeNames=["MessageRetentionPeriod", "RedrivePolicy"],
            )
            attributes = answer.get("Attributes", {})
            return QueueTerms(
                retention_seconds=_number(attributes, "MessageRetentionPeriod"),
                redrive=redrive_policy(attributes.get("RedrivePolicy")),
            )

    def dead_letter_url(self, policy: RedrivePolicy) -> str:
        """The URL of the dead-letter queue that a redrive policy names.

        Raises:
            QueueError: there is no such queue, or it may not be looked up.
        """
        with _translate_errors("GetQueueUrl", _NO_DEAD_LETTERS):
            answer = self._client.get_queue_url(
                QueueName=policy.queue_name, QueueOwnerAWSAccountId=policy.account
            )
        return answer["QueueUrl"]

    def receive(self, limits: DrainLimits) -> ReceiveResult:
        """Receives with several long polls at once until a limit is reached.

        Returns:
            A frame of `RAW_SCHEMA`, why the drain ended, and what it took.

        Raises:
            QueueError: a receive failed; what was received is held and handed back at close.
        """
        drain = Drain(self._receive, limits)
        drain.run(self._settings.receivers)
        raw = pl.DataFrame(
            [_raw_row(message) for message in drain.messages], schema=RAW_SCHEMA, orient="row"
        )
        return ReceiveResult(raw, drain.end, drain.requests, drain.seconds)

    def delete(self, handles: Mapping[str, str]) -> BatchResult:
        """Deletes messages, given as receipt handles by message id.

        What the service fails, or does not name in its answer, is tried again; what is left comes
        back and is recognised.

        Raises:
            QueueError: a request was refused as a whole; the other requests were still sent.
        """
        entries = [{"Id": id_, "ReceiptHandle": handle} for id_, handle in handles.items()]
        for message_id in handles:
            self._held.pop(message_id, None)
        return self._send_batches("delete_message_batch", _numbered(entries))

    def release(self, delay: Callable[[int], int] = release_delay) -> BatchResult:
        """Hands back what is held, each message after a delay that grows with its receives."""
        entries = [
            {"ReceiptHandle": handle, "VisibilityTimeout": delay(receive_count)}
            for handle, receive_count in self._held.values()
        ]
        self._held.clear()
        return self._send_batches("change_message_visibility_batch", _numbered(entries))

    def release_messages(self, message_ids: Iterable[str], seconds: int) -> BatchResult:
        """Hands some of the held messages back before the end; they are seen after a while."""
        return self._change_visibility([self._held.pop(each) for each in set(message_ids)], seconds)

    def extend_visibility(self, seconds: int) -> BatchResult:
        """Keeps what is held hidden for so many seconds from now."""
        return self._change_visibility(self._held.values(), seconds)

    def send(self, bodies: Iterable[str]) -> Iterator[BatchResult]:
        """Sends each body as a message; yields what became of each ten.

        Raises:
            QueueError: a request was refused as a whole.
        """
        for chunk in _chunks(_numbered({"MessageBody": body} for body in bodies)):
            yield self._send_chunk("send_message_batch", chunk)

    def close(self) -> None:
        """Hands back what is held and closes the connections."""
        try:
            self._release_or_warn()
        finally:
            self._client.close()

    def _change_visibility(self, held: Iterable[tuple[str, int]], seconds: int) -> BatchResult:
        entries = [{"ReceiptHandle": handle, "VisibilityTimeout": seconds} for handle, _ in held]
        return self._send_batches("change_message_visibility_batch", _numbered(entries))

    def _release_or_warn(self) -> None:
        # A run that is already failing must say its own reason, not this one.
        if not self._held:
            return
        try:
            settled = self.release()
        except QueueError as error:
            _LOG.warning("could not hand messages back, they return by themselves: %s", error)
            return
        _LOG.warning("handed %d messages back to the queue", settled.done)

    def _receive(self, at_most: int) -> list[MessageTypeDef]:
        with _translate_errors("ReceiveMessage"):
            answer = self._client.receive_message(
                QueueUrl=self._settings.url,
                MaxNumberOfMessages=min(at_most, MAX_RECEIVE),
                WaitTimeSeconds=self._settings.wait_seconds,
                VisibilityTimeout=self._settings.visibility_seconds,
                MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
            )
        messages = answer.get("Messages", [])
        self._hold(messages)
        return messages

    def _hold(self, messages: Iterable[MessageTypeDef]) -> None:
        # Receivers answer in any order: the newest of two handles is the one received most.
        with self._holding:
            for message in messages:
                id_, held = message["MessageId"], _held_as(message)
                self._held[id_] = max(held, self._held.get(id_, held), key=itemgetter(1))

    def _send_batches(self, operation: Operation, entries: Iterable[Entry]) -> BatchResult:
        with ThreadPoolExecutor(self._settings.receivers) as pool:
            futures = [
                pool.submit(self._send_chunk, operation, chunk) for chunk in _chunks(entries)
            ]
        settled = [future.result() for future in futures]
        return BatchResult(sum(each.done for each in settled), sum(each.left for each in settled))

    def _send_chunk(self, operation: Operation, entries: Sequence[Entry]) -> BatchResult:
        """Sends one batch request, and again what the service failed of it."""
        pending = list(entries)
        refused = 0

        def attempt() -> bool:
            nonlocal pending, refused
            failed = self._failed(operation, pending)
            refused += sum(failed.values())
            pending = [entry for entry in pending if failed.get(entry["Id"]) is False]
            return not pending

        Retrying(
            retry=retry_if_result(not_),
            stop=stop_after_attempt(_ENTRY_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry_error_callback=lambda _: None,
        )(attempt)
        left = len(pending) + refused
        return BatchResult(len(entries) - left, left)

    def _failed(self, operation: Operation, entries: Sequence[Entry]) -> dict[str, bool]:
        """The entries that failed, by id: whether it was the sender's fault."""
        with _translate_errors(operation):
            call = getattr(self._client, operation)
            answer = call(QueueUrl=self._settings.url, Entries=list(entries))
        faults = {
            each.get("Id"): bool(each.get("SenderFault")) for each in answer.get("Failed", [])
        }
        done = {each.get("Id") for each in answer.get("Successful", [])} - faults.keys()
        ids = [entry["Id"] for entry in entries]
        # What an answer does not name was not done, as far as anyone knows.
        return {id_: faults.get(id_, False) for id_ in ids if id_ not in done}


@contextmanager
def connect_queue(settings: QueueSettings) -> Iterator[LoginQueue]:
    """A connection to the queue; at the end it hands back what it still holds.

    Raises:
        QueueError: the AWS settings do not allow a client to be made.
    """
    silence_boto()
    config = Config(
        retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
        max_pool_connections=settings.receivers,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=settings.wait_seconds + READ_SECONDS,
    )
    with _translate_errors("connecting"):
        client = boto3.session.Session().client("sqs", config=config, **settings.client_options)
    with closing(LoginQueue(client, settings)) as queue:
        yield queue


_NO_QUEUE = "Check LOGIN_QUEUE_URL: there is no such queue."
_REMEDIES = {"NonExistentQueue": _NO_QUEUE, "QueueDoesNotExist": _NO_QUEUE}
_NO_TARGET = "The redrive policy of the login queue names a dead-letter queue that is not there."
_NO_DEAD_LETTERS = {"NonExistentQueue": _NO_TARGET, "QueueDoesNotExist": _NO_TARGET}


def _translate_errors(
    operation: str, remedies: Mapping[str, str] = _REMEDIES
) -> AbstractContextManager[None]:
    return translate_aws_errors(f"SQS {operation}", remedies, kind=QueueError)


def _number(attributes: Mapping[QueueAttributeNameType, str], name: QueueAttributeNameType) -> int:
    try:
        return int(attributes[name])
    except (KeyError, ValueError):
        raise QueueError(
            f"SQS GetQueueAttributes answers without a number for {name}: check LOGIN_QUEUE_URL and"
            " AWS_ENDPOINT_URL; what answers there is not SQS."
        ) from None


def _held_as(message: MessageTypeDef) -> tuple[str, int]:
    return message["ReceiptHandle"], int(message["Attributes"]["ApproximateReceiveCount"])


def _raw_row(message: MessageTypeDef) -> tuple[str, str, datetime, int, str]:
    attributes = message["Attributes"]
    return (
        message["MessageId"],
        message["ReceiptHandle"],
        datetime.fromtimestamp(int(attributes["SentTimestamp"]) / 1_000, UTC),
        int(attributes["ApproximateReceiveCount"]),
        storable_text(message["Body"]),
    )


def _numbered(entries: Iterable[Entry]) -> Iterator[Entry]:
    # Message ids are not safe as entry ids everywhere: numbers always are.
    return (entry | {"Id": str(number)} for number, entry in enumerate(entries))


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Groups of at most ten entries and, all bodies together, of at most 1 MiB."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        more = len(entry.get("MessageBody", "").encode())
        if chunk and (len(chunk) == _BATCH or size + more > _BATCH_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += more
    if chunk:
        yield chunk
