"""Commits a masked batch amid a rotation: each token is linked to the one under the older key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.contenders.commit import commit
from benchmarks.contenders.raw_batches import raw_batches
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, new_keyset, open_keyring
from fetch_mask_assets.keys.keyset_change import rotated
from fetch_mask_assets.keys.postgres import register_keys
from fetch_mask_assets.pipeline.batch.checked_batch import mask_and_check


def rounds() -> Iterator[Callable[[], int]]:
    """A new batch at a time, masked outside the measurement."""
    url = os.environ["LOGIN_DATABASE_URL"]
    keyring = open_keyring({name: rotated(name, new_keyset(name)).keyset for name in KEYSET_NAMES})
    register_keys(url, keyring.check_values)
    for raw in raw_batches():
        yield partial(commit, url, mask_and_check(raw, keyring))
