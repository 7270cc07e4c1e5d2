"""Commits a masked batch: ledger, rows, batch record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from uuid import uuid4

from benchmarks.contenders import settings
from benchmarks.contenders.raw_batches import raw_batches
from fetch_mask_assets.keys.postgres import register_keys
from fetch_mask_assets.pipeline.batch.checked_batch import CheckedBatch, mask_and_check
from fetch_mask_assets.pipeline.warehouse.commit import commit_checked


def rounds() -> Iterator[Callable[[], int]]:
    """A new batch at a time, masked outside the measurement."""
    url = os.environ["LOGIN_DATABASE_URL"]
    keyring = settings.keyring()
    register_keys(url, keyring.check_values)
    for raw in raw_batches():
        yield partial(commit, url, mask_and_check(raw, keyring))


def commit(url: str, batch: CheckedBatch) -> int:
    """Commits the batch; returns the number of its logins."""
    return commit_checked(url, str(uuid4()), batch).loaded
