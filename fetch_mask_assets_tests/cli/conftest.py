"""What several commands need: keys, and somebody who may recover."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets_tests.support.people import Person, person

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fetch_mask_assets.keys.keyset import Keyring


@pytest.fixture
def keyring(keysets_directory: Path) -> Keyring:
    """The keys that the commands use."""
    return read_keyring(keysets_directory)


@pytest.fixture
def steward(
    database_url: str, keysets_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Person]:
    """Somebody who may recover; the commands run in their name."""
    with person(database_url, "login_ingest_recovery") as somebody:
        monkeypatch.setenv("LOGIN_DATABASE_URL", "postgresql://127.0.0.1:1/not-this-one")
        monkeypatch.setenv("LOGIN_RECOVERY_DATABASE_URL", somebody.url)
        monkeypatch.setenv("MASKING_KEYSETS", str(keysets_directory))
        monkeypatch.setenv("COLUMNS", "200")
        yield somebody
