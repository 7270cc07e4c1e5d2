"""Batch requests of SQS: groups of entries, and retries of entries that failed.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-batch-api-actions.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import not_
from typing import TYPE_CHECKING, Any, Literal

from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from fetch_mask_assets.pipeline.queue.attributes import translate_errors

if TYPE_CHECKING:  # the stubs are for the type checker alone and are not installed with us
    from mypy_boto3_sqs.client import SQSClient

MAX_ENTRIES = 10
MAX_BYTES = 2**20
_ATTEMPTS = 4

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
    """Batch requests to one queue, `parallel` of them at once."""

    client: SQSClient
    url: str
    parallel: int

    def send(self, operation: Operation, entries: Iterable[Entry]) -> BatchResult:
        """Sends entries in as many requests as they need, several at once.

        Raises:
            QueueError: a request was refused as a whole; the other requests were still sent.
        """
        with ThreadPoolExecutor(self.parallel) as pool:
            futures = [pool.submit(self._send_chunk, operation, each) for each in _chunks(entries)]
        results = [future.result() for future in futures]
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

        Retrying(
            retry=retry_if_result(not_),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry_error_callback=lambda _: None,
        )(attempt)
        failed = len(pending) + refused
        return BatchResult(len(entries) - failed, failed)

    def _failed(self, operation: Operation, entries: Sequence[Entry]) -> dict[str, bool]:
        """The entries that failed, by id: whether it was the sender's fault."""
        with translate_errors(operation):
            call = getattr(self.client, operation)
            answer = call(QueueUrl=self.url, Entries=list(entries))
        faults = {
            each.get("Id"): bool(each.get("SenderFault")) for each in answer.get("Failed", [])
        }
        succeeded = {each.get("Id") for each in answer.get("Successful", [])} - faults.keys()
        ids = [entry["Id"] for entry in entries]
        # An entry that the answer does not name may not have taken effect.
        return {id_: faults.get(id_, False) for id_ in ids if id_ not in succeeded}


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
