"""Changes to keysets, each under the lock of the key registry and in the audit.

A keyset is written before the transaction commits: if it cannot be written, nothing is recorded.
If the commit then fails, the keyset is changed and the audit lacks the change; retire and restore
can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from fetch_mask_assets.audit.postgres import record
from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.keyset import new_keyset
from fetch_mask_assets.keys.keyset_change import disabled, enabled, key_states, rotated
from fetch_mask_assets.keys.postgres import key_usage, registered_keys
from fetch_mask_assets.keys.registry import RegisteredKey
from fetch_mask_assets.keys.storage import Keysets
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.postgres.locks import REGISTRY, acquire_lock
from fetch_mask_assets.postgres.sessions import LONG_RECORD, one_row, open_session


@dataclass(frozen=True, slots=True)
class KeyReference:
    """A key of a keyset, by its id."""

    keyset: str
    key_id: int


def init_keysets(
    database: LoginDatabase, keysets: Keysets, names: Sequence[str]
) -> tuple[KeyReference, ...]:
    """Create new keysets: all of them, or none if one must not be created.

    Raises:
        KeysetError: one exists, the database has keys of it, or it cannot be written.
        DatabaseError: the registry cannot be read, or the change cannot be recorded.
    """
    with _changing(database, "make keysets") as connection:
        for name in names:
            _refuse_registered(connection, name)
            _refuse_existing(keysets, name)
        return tuple(_create(connection, keysets, name) for name in names)


def rotate(database: LoginDatabase, keysets: Keysets, name: str) -> KeyReference:
    """Add a new primary key to a keyset; the old keys still open tokens.

    Raises:
        KeysetError: the keyset cannot be read or written; it is not changed.
        DatabaseError: the change cannot be recorded.
    """
    with _changing(database, "rotate a keyset") as connection:
        keyset, registered = keysets.read(name), registered_keys(connection, name)
        _refuse_other_database(name, keyset, registered)
        rotation = rotated(name, keyset, registered)
        _record(connection, "keys.rotate", KeyReference(name, rotation.key_id))
        keysets.replace(name, rotation.keyset)
    return KeyReference(name, rotation.key_id)


def retire(database: LoginDatabase, keysets: Keysets, name: str, key_id: int) -> KeyReference:
    """Disable a key that no row and no sealed message is under; the keyset keeps it.

    Raises:
        KeysetError: the key is primary, unknown or in use, or the keyset cannot be written.
        DatabaseError: rows cannot be counted, or the change cannot be recorded.
    """
    key = KeyReference(name, key_id)
    # Before the lock, because it reads the whole table and starting runs wait for the lock.
    usage = key_usage(database.url, name)
    with _changing(database, "retire a key") as connection:
        changed = _disabled(keysets.read(name), key, is_registered=key_id in usage.registered)
        _refuse_used(key, usage.rows.get(key_id, 0))
        # Counts again under a lock of the key's row, which blocks new rows under the key.
        (rows,) = one_row(connection, _RETIRE, name, key_id)
        _refuse_used(key, int(rows))
        if changed is not None:
            keysets.replace(name, changed)
    return key


def restore(database: LoginDatabase, keysets: Keysets, name: str, key_id: int) -> KeyReference:
    """Enable a retired or disabled key: it opens tokens again, and is not primary.

    Raises:
        KeysetError: the key is not in the keyset, or the keyset cannot be read or written.
        DatabaseError: the change cannot be recorded.
    """
    with _changing(database, "restore a key") as connection:
        changed = enabled(name, keysets.read(name), key_id)
        connection.execute(_RESTORE, [name, key_id])
        keysets.replace(name, changed)
    return KeyReference(name, key_id)


@contextmanager
def _changing(database: LoginDatabase, action: str) -> Iterator[psycopg.Connection]:
    with (
        open_session(database.url, LONG_RECORD, action) as connection,
        connection.transaction(),
    ):
        acquire_lock(connection, REGISTRY)
        yield connection


def _refuse_registered(connection: psycopg.Connection, name: str) -> None:
    registered = registered_keys(connection, name)
    if registered:
        ids = ", ".join(map(str, registered))
        raise KeysetError(
            f"the database has keys of {name} ({ids}): a new keyset would make equal values"
            " unequal. Set MASKING_KEYSETS to the keyset with these keys, or restore it from its"
            " backup. No keyset was created."
        )


def _refuse_existing(keysets: Keysets, name: str) -> None:
    if keysets.exists(name):
        raise KeysetError(
            f"a keyset of {name} exists at {keysets.location(name)} and was not changed. No keyset"
            " was created. Use --field to create only the missing ones."
        )


def _refuse_other_database(name: str, keyset: str, registered: Mapping[int, RegisteredKey]) -> None:
    enabled_ids = {state.key_id for state in key_states(name, keyset) if state.is_enabled}
    for key_id, key in registered.items():
        if key_id not in enabled_ids and key.retired_at is None:
            raise KeysetError(
                f"the keyset of {name} lacks key {key_id}, which is registered in the database: it"
                " is not the keyset of this database. Check MASKING_KEYSETS. Nothing was changed."
            )


def _create(connection: psycopg.Connection, keysets: Keysets, name: str) -> KeyReference:
    keyset = new_keyset(name)
    (state,) = key_states(name, keyset)
    key = KeyReference(name, state.key_id)
    _record(connection, "keys.init", key)
    keysets.create(name, keyset)
    return key


def _disabled(keyset: str, key: KeyReference, *, is_registered: bool) -> str | None:
    """Return the keyset with the key disabled, or None if it lacks a registered key."""
    if key.key_id in {state.key_id for state in key_states(key.keyset, keyset)}:
        return disabled(key.keyset, keyset, key.key_id)
    if not is_registered:
        raise KeysetError(
            f"key {key.key_id} is not in the keyset of {key.keyset} and not registered."
        )
    return None


def _refuse_used(key: KeyReference, rows: int) -> None:
    if rows:
        raise KeysetError(
            f"{rows} rows are under key {key.key_id} of {key.keyset}, which is needed to open them."
            " Re-mask the logins (`fetch-mask remask`), or replay or discard the quarantined"
            " messages, until `fetch-mask keys list` shows no rows."
        )


def _record(connection: psycopg.Connection, action: str, key: KeyReference) -> None:
    record(connection, action, {"keyset": key.keyset, "key_id": key.key_id})


_RETIRE = "SELECT login_ingest.retire_key(%s, %s)"

_RESTORE = "SELECT login_ingest.restore_key(%s, %s)"
