"""COPY of masked rows into a table with three indexes, in a session of its own.

The baseline of `commit`, which opens a session too. The indexes are the useful ones of user_logins:
the user and both tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import polars as pl
import psycopg

from benchmarks.contenders import settings
from benchmarks.contenders.raw_batches import raw_batches
from benchmarks.rivals.logins import COLUMNS
from fetch_mask_assets.pipeline.batch.checked_batch import mask_and_check

_COPY = f"COPY user_logins ({', '.join(COLUMNS)}) FROM STDIN (FORMAT csv)"


def rounds() -> Iterator[Callable[[], int]]:
    """A new batch at a time, masked outside the measurement."""
    url, keyring = os.environ["LOGIN_DATABASE_URL"], settings.keyring()
    for raw in raw_batches():
        yield partial(_copy, url, mask_and_check(raw, keyring).masked.select(COLUMNS))


def _copy(url: str, masked: pl.DataFrame) -> int:
    with (
        psycopg.connect(url) as connection,
        connection.cursor() as cursor,
        cursor.copy(_COPY) as copy,
    ):
        copy.write(masked.write_csv(include_header=False))
    return masked.height
