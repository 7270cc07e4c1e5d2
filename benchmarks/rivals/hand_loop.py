"""The loop that a good engineer writes by hand.

boto3 in tens by four threads, JSON, HMAC-SHA256 of both fields, one COPY, deletes in tens. No
ledger, no quarantine, no checks, and no way back from a token.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import psycopg

from benchmarks.rivals.logins import COLUMNS, as_row
from benchmarks.rivals.sqs import Queue

_THREADS = 4
_COPY = f"COPY user_logins ({', '.join(COLUMNS)}) FROM STDIN"


def load(queue: Queue, connection: psycopg.Connection, limit: int) -> int:
    """Loads one batch; returns the number of its messages."""
    messages = queue.receive(limit)
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for message in messages:
            copy.write_row(as_row(message))
    queue.delete(messages)
    return len(messages)


def rounds() -> Iterator[Callable[[], int]]:
    """A batch at a time, with one queue and one session."""
    queue, limit = Queue(_THREADS), int(os.environ["LOGIN_BATCH_MESSAGES"])
    with psycopg.connect(os.environ["LOGIN_DATABASE_URL"]) as connection:
        while True:
            yield partial(load, queue, connection, limit)


def main() -> None:
    """Load batches until the queue is empty."""
    for batch in rounds():
        if not batch():
            return


if __name__ == "__main__":
    main()
