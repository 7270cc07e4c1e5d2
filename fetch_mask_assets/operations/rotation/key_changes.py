"""Changes to keysets, each in the registry's turn and on the record.

A keyset is written before the transaction commits: where it cannot be written, nothing is on
record. Should the commit then fail, the keyset is changed and the record lacks it; a retirement
and a restoration can be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

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
class KeyChange:
    """A key that was made, retired or restored."""

    keyset: str
    key_id: int


def init_keysets(
    database: LoginDatabase, keysets: Keysets, names: Sequence[str]
) -> tuple[KeyChange, ...]:
    """Makes new keysets, all of them or, where one must not be made, none.

    Raises:
        KeysetError: one exists, or the database knows keys of it already; or it cannot be written.
        DatabaseError: the registry cannot be read, or the change cannot be recorded.
    """
    with _changing(database, "make keysets") as connection:
        for name in names:
            _refuse_known(connection, name)
            _refuse_existing(keysets, name)
        return tuple(_init(connection, keysets, name) for name in names)


def rotate(database: LoginDatabase, keysets: Keysets, name: str) -> KeyChange:
    """Adds a new primary key to a keyset; its old keys go on opening tokens.

    Raises:
        KeysetError: the keyset cannot be read or written; it stays as it was.
        DatabaseError: the change cannot be recorded.
    """
    with _changing(database, "rotate a keyset") as connection:
        keyset, registered = keysets.read(name), registered_keys(connection, name)
        _refuse_foreign(name, keyset, registered)
        rotation = rotated(name, keyset, registered)
        _record(connection, "keys.rotate", KeyChange(name, rotation.key_id))
        keysets.replace(name, rotation.keyset)
    return KeyChange(name, rotation.key_id)


def retire(database: LoginDatabase, keysets: Keysets, name: str, key_id: int) -> KeyChange:
    """Disables a key that nothing is under any more; the keyset keeps it.

    Raises:
        KeysetError: the key is primary, unknown or in use, or the keyset cannot be written.
        DatabaseError: rows cannot be counted, or the change cannot be recorded.
    """
    change = KeyChange(name, key_id)
    # Before the lock, which runs wait for as they start: it reads the whole table.
    usage = key_usage(database.url, name)
    with _changing(database, "retire a key") as connection:
        keyset = keysets.read(name)
        is_present = key_id in {state.key_id for state in key_states(name, keyset)}
        if not is_present and key_id not in usage.registered:
            raise KeysetError(f"key {key_id} is not in the keyset of {name}, nor registered.")
        changed = disabled(name, keyset, key_id) if is_present else None
        _refuse_used(change, usage.rows.get(key_id, 0))
        # Rows that were written since they were counted: the key's row keeps more from coming.
        (rows,) = one_row(connection, _RETIRE, name, key_id)
        _refuse_used(change, int(rows))
        if changed is not None:
            keysets.replace(name, changed)
    return change


def restore(database: LoginDatabase, keysets: Keysets, name: str, key_id: int) -> KeyChange:
    """Brings a retired or disabled key back: it opens tokens again, and is not primary.

    Raises:
        KeysetError: the key is not in the keyset, or the keyset cannot be read or written.
        DatabaseError: the change cannot be recorded.
    """
    change = KeyChange(name, key_id)
    with _changing(database, "restore a key") as connection:
        changed = enabled(name, keysets.read(name), key_id)
        connection.execute(_RESTORE, [name, key_id])
        keysets.replace(name, changed)
    return change


@contextmanager
def _changing(database: LoginDatabase, action: str) -> Iterator[psycopg.Connection]:
    with (
        open_session(database.url, LONG_RECORD, action) as connection,
        connection.transaction(),
    ):
        acquire_lock(connection, REGISTRY)
        yield connection


def _refuse_known(connection: psycopg.Connection, name: str) -> None:
    known = registered_keys(connection, name)
    if known:
        ids = ", ".join(map(str, known))
        raise KeysetError(
            f"the database knows keys of {name} already ({ids}): a new keyset would make equal"
            " values unequal. Point MASKING_KEYSETS to the keyset that has them, or bring it back"
            " from its backup. Nothing was made."
        )


def _refuse_existing(keysets: Keysets, name: str) -> None:
    if keysets.exists(name):
        raise KeysetError(
            f"there is a keyset of {name} at {keysets.place(name)}: it is left as it is, and"
            " nothing was made. Name those to make with --field."
        )


def _refuse_foreign(name: str, keyset: str, registered: Mapping[int, RegisteredKey]) -> None:
    enabled_ids = {state.key_id for state in key_states(name, keyset) if state.is_enabled}
    for key_id, key in registered.items():
        if key_id not in enabled_ids and key.retired_at is None:
            raise KeysetError(
                f"the keyset of {name} lacks key {key_id}, which the database knows: it is not the"
                " keyset of this database. Check MASKING_KEYSETS. Nothing was changed."
            )


def _init(connection: psycopg.Connection, keysets: Keysets, name: str) -> KeyChange:
    keyset = new_keyset(name)
    (state,) = key_states(name, keyset)
    change = KeyChange(name, state.key_id)
    _record(connection, "keys.init", change)
    keysets.create(name, keyset)
    return change


def _refuse_used(change: KeyChange, rows: int) -> None:
    if rows:
        raise KeysetError(
            f"{rows} rows are under key {change.key_id} of {change.keyset}: it is needed to open"
            " them. Re-mask the logins (the job remask_logins), or replay or discard the"
            " quarantined messages, until `fetch-mask keys list` shows none."
        )


def _record(connection: psycopg.Connection, action: str, change: KeyChange) -> None:
    detail = json.dumps({"keyset": change.keyset, "key_id": change.key_id})
    connection.execute("SELECT login_ingest.record_audit(%s, %s)", [action, detail])


_RETIRE = "SELECT login_ingest.retire_key(%s, %s)"

_RESTORE = "SELECT login_ingest.restore_key(%s, %s)"
