"""A pandas frame and its `to_sql`, with many rows in one INSERT.

Source: https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.to_sql.html
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
import sqlalchemy

from benchmarks.rivals.logins import as_records
from benchmarks.rivals.sqs import Queue

_THREADS = 4
_ROWS_OF_INSERT = 1_000


def load(queue: Queue, engine: sqlalchemy.Engine, limit: int) -> int:
    """Loads one batch; returns the number of its messages."""
    messages = queue.receive(limit)
    frame = pd.DataFrame(as_records(messages))
    frame.to_sql(
        "user_logins",
        engine,
        if_exists="append",
        index=False,
        method="multi",
        chunksize=_ROWS_OF_INSERT,
    )
    queue.delete(messages)
    return len(messages)


def rounds() -> Iterator[Callable[[], int]]:
    """A batch at a time, with one queue and one engine."""
    queue, limit = Queue(_THREADS), int(os.environ["LOGIN_BATCH_MESSAGES"])
    url = sqlalchemy.make_url(os.environ["LOGIN_DATABASE_URL"])
    engine = sqlalchemy.create_engine(url.set(drivername="postgresql+psycopg2"))
    while True:
        yield partial(load, queue, engine, limit)
