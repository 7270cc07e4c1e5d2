"""The queue as the rivals read it: boto3, in tens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import DeleteMessageBatchRequestEntryTypeDef

IN_ONE_REQUEST = 10
_LONG_POLL_SECONDS = 2

Message = Mapping[str, Any]


class Queue:
    """The queue of LOGIN_QUEUE_URL, read by some threads at once."""

    def __init__(self, threads: int) -> None:
        """Connects; a client of boto3 may be shared by threads."""
        self._url = os.environ["LOGIN_QUEUE_URL"]
        self._client = boto3.client("sqs", config=Config(max_pool_connections=threads))
        self._threads = threads

    def receive(self, limit: int) -> list[Message]:
        """Receives until the limit is reached or each thread has seen an empty answer."""
        share = -(-limit // self._threads)
        shares = [min(share, limit - share * thread) for thread in range(self._threads)]
        return list(chain.from_iterable(self._at_once(self._receive_share, shares)))

    def delete(self, messages: Sequence[Message]) -> None:
        """Deletes messages in tens.

        Raises:
            RuntimeError: a message was not deleted.
        """
        starts = range(0, len(messages), IN_ONE_REQUEST)
        self._at_once(
            self._delete_ten, [messages[start : start + IN_ONE_REQUEST] for start in starts]
        )

    def _receive_share(self, limit: int) -> list[Message]:
        received: list[Message] = []
        while (missing := limit - len(received)) > 0:
            answer = self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(IN_ONE_REQUEST, missing),
                WaitTimeSeconds=_LONG_POLL_SECONDS,
                MessageSystemAttributeNames=["SentTimestamp"],
            )
            messages = answer.get("Messages")
            if not messages:
                break
            received.extend(messages)
        return received

    def _delete_ten(self, messages: Sequence[Message]) -> None:
        entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
            for number, message in enumerate(messages)
        ]
        answer = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
        if answer.get("Failed"):
            raise RuntimeError("SQS did not delete a message")

    def _at_once(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(work, items))
