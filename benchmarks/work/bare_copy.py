"""COPY of masked rows into a table with three indexes, committed: the baseline of `commit`.

The indexes are the useful ones of user_logins: the user and both tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import polars as pl
import psycopg

from benchmarks.rivals.logins import COLUMNS
from benchmarks.work import settings
from benchmarks.work.raw_batches import raw_batches
from fetch_mask_assets.pipeline.batch.checked_batch import mask_and_check

_COPY = f"COPY user_logins ({', '.join(COLUMNS)}) FROM STDIN (FORMAT csv)"


def rounds() -> Iterator[Callable[[], int]]:
    """A new batch at a time, masked outside the measurement, with one session."""
    keyring = settings.keyring()
    with psycopg.connect(os.environ["LOGIN_DATABASE_URL"], autocommit=True) as connection:
        for raw in raw_batches():
            masked = mask_and_check(raw, keyring).masked.select(COLUMNS)
            yield partial(_copy, connection, masked)


def _copy(connection: psycopg.Connection, masked: pl.DataFrame) -> int:
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(masked.write_csv(include_header=False))
    return masked.height
