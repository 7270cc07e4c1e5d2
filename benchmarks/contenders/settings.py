"""The settings that the stages read."""

from __future__ import annotations

import os

from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.storage import keysets_at, read_keyring


def batch_messages() -> int:
    """The number of messages of a batch."""
    return int(os.environ["LOGIN_BATCH_MESSAGES"])


def keyring() -> Keyring:
    """The keys of the benchmark."""
    return read_keyring(keysets_at(os.environ["MASKING_KEYSETS"], None))
