"""Decodes, validates and masks a batch, and applies the masking rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import polars as pl

from benchmarks.contenders import settings
from benchmarks.contenders.raw_batches import raw_batches
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.pipeline.batch.checked_batch import mask_and_check


def rounds() -> Iterator[Callable[[], int]]:
    """A new batch at a time."""
    keyring = settings.keyring()
    for raw in raw_batches():
        yield partial(_mask_and_check, raw, keyring)


def _mask_and_check(raw: pl.DataFrame, keyring: Keyring) -> int:
    batch = mask_and_check(raw, keyring)
    if batch.broken:
        raise RuntimeError("the batch breaks a masking rule")
    return batch.masked["reason"].null_count()
