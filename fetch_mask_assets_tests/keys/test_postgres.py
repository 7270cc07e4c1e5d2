"""The key registry, and the rows under each key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fetch_mask_assets.errors import DatabaseError, NotReadyError
from fetch_mask_assets.keys.keyset import open_keyring
from fetch_mask_assets.keys.postgres import (
    key_usage,
    register_keys,
    registry_conflicts,
    retired_keys,
)
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.pipeline.warehouse.readiness import findings, require_ready
from fetch_mask_assets_tests.support.factories import new_keysets, rotated, siv_keyset
from fetch_mask_assets_tests.support.logins import bodies, masked_batch, register

if TYPE_CHECKING:
    from pathlib import Path

    from fetch_mask_assets.keys.keyset import Keyring

# Ids whose bytes become every kind of base64url character, and that fill all 32 bits.
KEY_IDS = (1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFBEFBEFB, 0xFFBFFBFF)

CHECK_VALUES = "SELECT keyset, key_id, check_value FROM login_ingest.masking_key"


@pytest.fixture
def database(database_url: str) -> LoginDatabase:
    """The test's own database."""
    return LoginDatabase(database_url)


def test_rows_are_counted_under_the_key_that_masked_them(database: LoginDatabase) -> None:
    expected = {}
    for count, key_id in enumerate(KEY_IDS, start=3):
        own = new_keysets() | {
            "ip": siv_keyset(bytes([count]) * 64, key_id),
            "device_id": siv_keyset(bytes([count + 100]) * 64, key_id),
        }
        _commit(database, open_keyring(own), bodies(count))
        expected[key_id] = count
    assert key_usage(database.url, "ip").rows == expected
    assert key_usage(database.url, "device_id").rows == expected


def test_sealed_messages_are_counted_under_the_key_that_sealed_them(
    database: LoginDatabase,
) -> None:
    keysets = new_keysets()
    old = open_keyring(keysets)
    new = open_keyring(keysets | {"quarantine": rotated(keysets["quarantine"], "quarantine")})
    _commit(database, old, ["no login"] * 3)
    _commit(database, new, ["no login"] * 2)
    assert key_usage(database.url, "quarantine").rows == {
        old.sealer.primary_key_id: 3,
        new.sealer.primary_key_id: 2,
    }
    assert key_usage(database.url, "ip").rows == {}


@pytest.mark.parametrize(
    "text",
    [None, "", "ip:", "ip:AQ", "ip:!!!!!!!!", "192.0.2.1", "ip:AQAAAA-=", "device_id:AQAAAAEA",
     "ip:AgAAAAEA" + "A" * 42, "ip:\u00e9AAAAAAA"],
)  # fmt: skip
def test_what_is_no_token_is_under_no_key_and_hinders_no_count(
    database: LoginDatabase, text: str | None
) -> None:
    keyring = open_keyring(new_keysets())
    _commit(database, keyring, bodies(2))
    _run(database.url, "INSERT INTO user_logins (masked_ip) VALUES (%s)", text)
    assert key_usage(database.url, "ip").rows == {keyring.masker("ip").primary_key_id: 2}


def test_the_registry_says_when_a_key_was_first_used_and_retired(database: LoginDatabase) -> None:
    keyring = open_keyring(new_keysets())
    require_ready(database, keyring)
    key_id = keyring.masker("ip").primary_key_id
    assert retired_keys(database.url) == frozenset()
    _retire(database, key_id)
    known = key_usage(database.url, "ip").registered[key_id]
    assert known.retired_at
    assert known.first_used_at <= known.retired_at
    assert retired_keys(database.url) == {("ip", key_id)}


def test_a_retired_key_may_be_absent(database: LoginDatabase) -> None:
    keysets = new_keysets()
    old = open_keyring(keysets)
    require_ready(database, old)
    new = open_keyring(keysets | {"ip": new_keysets()["ip"]})
    with pytest.raises(NotReadyError, match="lacks key"):
        require_ready(database, new)
    _retire(database, old.masker("ip").primary_key_id)
    require_ready(database, new)


def test_another_key_under_the_id_of_a_retired_one_is_refused(database: LoginDatabase) -> None:
    require_ready(database, open_keyring(new_keysets() | {"ip": siv_keyset(bytes(64), 5)}))
    _retire(database, 5)
    other = open_keyring(new_keysets() | {"ip": siv_keyset(bytes([1]) * 64, 5)})
    assert "the keyset of ip has another key under the id 5" in registry_conflicts(
        database.url, other.check_values
    )


def test_a_retired_key_that_is_primary_again_stops_runs_and_is_found(
    database: LoginDatabase, keysets_directory: Path
) -> None:
    keyring = read_keyring(keysets_directory)
    require_ready(database, keyring)
    _retire(database, keyring.masker("ip").primary_key_id)
    description = (
        f"the primary key of the keyset of ip, {keyring.masker('ip').primary_key_id}, is retired"
    )
    with pytest.raises(NotReadyError, match=description):
        require_ready(database, keyring)
    found = {each.name: each for each in findings(database, keysets_directory)}
    assert not found["key registry"].ok
    assert description in found["key registry"].description


def test_a_database_without_our_tables_is_told_to_be_migrated(database: LoginDatabase) -> None:
    _run(database.url, "DROP SCHEMA login_ingest CASCADE")
    with pytest.raises(DatabaseError, match=r"count rows by key.*fetch-mask migrate"):
        key_usage(database.url, "quarantine")


def test_keys_are_registered_at_their_first_use(database_url: str) -> None:
    keyring = open_keyring(new_keysets())
    assert registry_conflicts(database_url, keyring.check_values) == ()
    assert _number(database_url, "SELECT count(*) FROM login_ingest.masking_key") == 0
    assert register_keys(database_url, keyring.check_values) == ()
    assert register_keys(database_url, keyring.check_values) == ()
    assert _rows(
        database_url, "SELECT keyset, key_id, check_value FROM login_ingest.masking_key"
    ) == sorted(
        (name, key_id, check)
        for name, checks in keyring.check_values.items()
        for key_id, check in checks.items()
    )


def test_a_key_that_is_added_is_registered_too(database_url: str) -> None:
    register_keys(database_url, {"ip": {1: b"one"}})
    assert register_keys(database_url, {"ip": {1: b"one", 2: b"two"}}) == ()
    assert _number(database_url, "SELECT count(*) FROM login_ingest.masking_key") == 2


@pytest.mark.parametrize(
    ("present", "conflict"),
    [
        ({"ip": {1: b"another"}}, "the keyset of ip has another key under the id 1"),
        ({"ip": {2: b"two"}}, "the keyset of ip lacks key 1, which is registered"),
        ({}, "the keyset of ip lacks key 1, which is registered"),
        (
            {"ip": {1: b"one"}, "device_id": {5: b"one"}},
            "the keysets of device_id and ip share a key",
        ),
    ],
)
def test_keys_that_do_not_fit_conflict_and_are_not_registered(
    database_url: str, present: dict[str, dict[int, bytes]], conflict: str
) -> None:
    register_keys(database_url, {"ip": {1: b"one"}})
    assert registry_conflicts(database_url, present) == (conflict,)
    assert register_keys(database_url, present) == (conflict,)
    assert _rows(
        database_url, "SELECT keyset, key_id, check_value FROM login_ingest.masking_key"
    ) == [("ip", 1, b"one")]


def test_of_workers_with_different_new_keys_exactly_one_registers(
    database_url: str,
) -> None:
    keys = [{"ip": {number: b"%d" % number}} for number in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        conflicts = list(pool.map(partial(register_keys, database_url), keys))
    assert sum(found == () for found in conflicts) == 1
    assert _number(database_url, "SELECT count(*) FROM login_ingest.masking_key") == 1


def _commit(database: LoginDatabase, keyring: Keyring, texts: list[str]) -> None:
    masked = masked_batch(keyring, texts)
    run_id = f"{keyring.masker('ip').primary_key_id}-{keyring.sealer.primary_key_id}-{len(texts)}"
    register(database.url, keyring)
    commit_batch(database.url, BatchToCommit(run_id=run_id, masked=masked, seal=lambda _: b""))


def _retire(database: LoginDatabase, key_id: int) -> None:
    _run(
        database.url,
        "UPDATE login_ingest.masking_key SET retired_at = now() WHERE key_id = %s",
        key_id,
    )


def _run(url: str, statement: str, *values: object) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode(), values or None)


def _rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return sorted(connection.execute(statement.encode()).fetchall())


def _number(url: str, statement: str) -> int:
    [(number,)] = _rows(url, statement)
    return int(number)
