"""The first script that most people write: MD5 of both fields, one INSERT for each row.

boto3 in tens by one thread, one commit for each ten messages, deletes in tens.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial

import psycopg

from benchmarks.rivals.logins import as_row
from benchmarks.rivals.sqs import IN_ONE_REQUEST, Queue

_INSERT = "INSERT INTO user_logins VALUES (%s, %s, %s, %s, %s, %s, %s)"


def load(queue: Queue, connection: psycopg.Connection, limit: int) -> int:
    """Loads up to so many messages; returns their number."""
    loaded = 0
    while loaded < limit and (messages := queue.receive(IN_ONE_REQUEST)):
        with connection.transaction():
            for message in messages:
                connection.execute(_INSERT, as_row(message, _md5))
        queue.delete(messages)
        loaded += len(messages)
    return loaded


def rounds() -> Iterator[Callable[[], int]]:
    """As many messages as a batch has, with one session."""
    queue, limit = Queue(threads=1), int(os.environ["LOGIN_BATCH_MESSAGES"])
    with psycopg.connect(os.environ["LOGIN_DATABASE_URL"]) as connection:
        while True:
            yield partial(load, queue, connection, limit)


def _md5(value: str) -> str:
    return hashlib.md5(value.encode()).hexdigest()
