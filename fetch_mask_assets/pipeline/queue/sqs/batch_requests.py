"""Batch requests of SQS: groups of entries, and retries of entries that failed.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-batch-api-actions.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import not_
from typing import Any, Literal

from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.pipeline.queue.shared_work import SharedWork
from fetch_mask_assets.pipeline.queue.sqs.attributes import translate_errors
from fetch_mask_assets.pipeline.queue.sqs.client import SqsClient
from fetch_mask_assets.pipeline.queue.sqs.delivery import require_digest
from fetch_mask_assets.pipeline.queue.sqs.protocol import NOT_SQS

MAX_ENTRIES = 10
MAX_BYTES = 2**20
_ATTEMPTS = Retrying(
    retry=retry_if_result(not_),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    retry_error_callback=lambda _: None,
)

Entry = dict[str, Any]
"""One entry of a batch request, as boto3 takes it, without its `Id`."""

Operation = Literal["delete_message_batch", "change_message_visibility_batch", "send_message_batch"]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The number of entries that took effect, and of those that did not."""

    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class BatchRequests:
    """Batch requests to one queue, at most `parallel` of them at once."""

    client: SqsClient
    url: str
    parallel: int

    def send(self, operation: Operation, entries: Iterable[Entry]) -> BatchResult:
        """Sends entries in as many requests as they need, several at once if they take long.

        Raises:
            QueueError: a request was refused as a whole; the other requests were still sent.
        """
        work = SharedWork(_chunks(entries), partial(self._send_chunk, operation))
        results = work.run(self.parallel)
        return BatchResult(
            sum(each.succeeded for each in results), sum(each.failed for each in results)
        )

    def send_in_order(
        self, operation: Operation, entries: Iterable[Entry]
    ) -> Iterator[BatchResult]:
        """Sends entries in one request after another; yields the result of each.

        Raises:
            QueueError: a request was refused as a whole.
        """
        for chunk in _chunks(entries):
            yield self._send_chunk(operation, chunk)

    def _send_chunk(self, operation: Operation, entries: Sequence[Entry]) -> BatchResult:
        """Sends one request, and again the entries that the service failed."""
        pending = list(entries)
        refused = 0

        def attempt() -> bool:
            nonlocal pending, refused
            failed = self._failed(operation, pending)
            refused += sum(failed.values())
            pending = [entry for entry in pending if failed.get(entry["Id"]) is False]
            return not pending

        results = [attempt()]
        if pending:  # tenacity takes a third of the CPU of a request, so it begins with its result
            _ATTEMPTS(lambda: results.pop() if results else attempt())
        failed = len(pending) + refused
        return BatchResult(len(entries) - failed, failed)

    def _failed(self, operation: Operation, entries: Sequence[Entry]) -> dict[str, bool]:
        """The entries that failed, by id: whether it was the sender's fault."""
        with translate_errors(operation):
            call = getattr(self.client, operation)
            answer = call(QueueUrl=self.url, Entries=list(entries))
        try:
            faults = {each["Id"]: bool(each["SenderFault"]) for each in answer.get("Failed") or ()}
            done = {each["Id"]: each for each in answer.get("Successful") or ()}
        except (KeyError, TypeError):
            raise QueueError(f"SQS {operation} answers without a result: {NOT_SQS}") from None
        for entry in entries:
            if operation == "send_message_batch" and entry["Id"] in done:
                digest = done[entry["Id"]].get("MD5OfMessageBody")
                require_digest(operation, entry["MessageBody"], digest)
        # An entry that the answer does not name may not have taken effect.
        failed = [entry["Id"] for entry in entries if entry["Id"] not in done.keys() - faults]
        return {id_: faults.get(id_, False) for id_ in failed}


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Groups of at most ten entries and, all bodies together, of at most 1 MiB."""
    chunk: list[Entry] = []
    size = 0
    # Not every server takes message ids as entry ids: numbers are safe.
    for number, entry in enumerate(entries):
        more = len(entry.get("MessageBody", "").encode())
        if chunk and (len(chunk) == MAX_ENTRIES or size + more > MAX_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry | {"Id": str(number)})
        size += more
    if chunk:
        yield chunk
