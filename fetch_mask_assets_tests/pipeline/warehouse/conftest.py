"""Keys, and a database in which they are registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fetch_mask_assets.keys.storage import create_keysets, read_keyring
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.support.logins import register

if TYPE_CHECKING:
    from fetch_mask_assets.keys.keyset import Keyring


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    """Keys for the whole module."""
    directory = tmp_path_factory.mktemp("keysets")
    create_keysets(directory)
    return read_keyring(directory)


@pytest.fixture
def database(database_url: str, keyring: Keyring) -> LoginDatabase:
    """The test's own database, in which the keys are registered."""
    register(database_url, keyring)
    return LoginDatabase(database_url)
