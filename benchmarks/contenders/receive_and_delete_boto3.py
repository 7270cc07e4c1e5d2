"""Receives a batch by boto3 in tens with four threads and deletes it, as the hand loop does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.rivals.sqs import Queue

_THREADS = 4


def rounds() -> Iterator[Callable[[], int]]:
    """A batch at a time, with one client."""
    queue, limit = Queue(_THREADS), int(os.environ["LOGIN_BATCH_MESSAGES"])
    while True:
        yield partial(_receive_and_delete, queue, limit)


def _receive_and_delete(queue: Queue, limit: int) -> int:
    messages = queue.receive(limit)
    queue.delete(messages)
    return len(messages)
