"""Readiness of everything that a run needs, checked before anything is received.

A receive that cannot be committed raises the message's receive count, and in the end sends good
messages to the dead-letter queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from fetch_mask_assets.errors import FetchMaskError, NotReadyError
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.postgres import register_keys, registry_conflicts, retired_keys
from fetch_mask_assets.keys.registry import retired_primaries
from fetch_mask_assets.keys.storage import Keysets, read_keyring
from fetch_mask_assets.masking.fields import CLEAR_FIELDS
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a run needs: whether it is ready, and its state or the remedy."""

    name: str
    ok: bool
    description: str


def require_ready(database: LoginDatabase, keyring: Keyring) -> None:
    """Requires that a batch can be committed; registers new keys and prepares the ledger.

    Raises:
        NotReadyError: the schema or the keys do not fit.
        DatabaseError: the database cannot be reached.
    """
    _require_schema(database)
    _require_no_conflict(retired_primaries(retired_keys(database.url), keyring.primary_key_ids))
    _require_no_conflict(register_keys(database.url, keyring.check_values))
    database.prepare_ledger()


def require_writable(database: LoginDatabase, keyring: Keyring) -> None:
    """Requires that the table takes rows: inserts one and rolls back.

    Raises:
        DatabaseError: the table takes none.
    """
    tokens = {each.field.column: each.mask(each.field.form.example) for each in keyring.maskers}
    login = {**_PROBE, **tokens, "create_date": datetime.now(UTC).date()}
    database.require_writable([login[column] for column in LOGIN_COLUMNS])


_PROBE: Mapping[str, str | None] = {
    field.column: None if field.number or not field.is_required else "none"
    for field in CLEAR_FIELDS
}


def findings(
    database: LoginDatabase,
    keysets: Keysets | Path,
    queue: LoginQueue | None = None,
    *,
    commits: bool = False,
) -> tuple[Finding, ...]:
    """Checks everything that a run needs, without changing anything.

    With `commits`, if all else is ready, a row is inserted and rolled back as well.
    """
    # Read once: keysets in AWS cost a call each.
    keyring = cache(lambda: read_keyring(keysets))
    checks: list[tuple[str, Callable[[], str]]] = [
        ("masking keys", lambda: _check_keys(keyring())),
        ("database", lambda: _check_schema(database)),
        ("key registry", lambda: _check_registry(database, keyring())),
    ]
    if queue is not None:
        checks.append(("queue", lambda: _check_queue(queue)))
    found = tuple(_finding(name, check) for name, check in checks)
    if not commits or not all(each.ok for each in found):
        return found
    return (*found, _finding("table", lambda: _check_table(database, keyring())))


def require_all_ok(found: Iterable[Finding]) -> None:
    """Refuses to go on if something is not ready.

    Raises:
        NotReadyError: names each finding that is not ok.
    """
    not_ok = [f"[{each.name}] {each.description}" for each in found if not each.ok]
    if not_ok:
        raise NotReadyError(f"Nothing was received: {' '.join(not_ok)}")


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, description=check())
    except FetchMaskError as error:
        return Finding(name, ok=False, description=str(error))


def _check_keys(keyring: Keyring) -> str:
    primaries = ", ".join(f"{each.field.name} {each.primary_key_id}" for each in keyring.maskers)
    return f"the keysets open; primary keys: {primaries}."


def _check_schema(database: LoginDatabase) -> str:
    _require_schema(database)
    return "the database answers, and its schema is the one of this release."


def _check_registry(database: LoginDatabase, keyring: Keyring) -> str:
    retired = retired_primaries(retired_keys(database.url), keyring.primary_key_ids)
    _require_no_conflict((*registry_conflicts(database.url, keyring.check_values), *retired))
    return "the keys are the ones that the table's tokens were made with."


def _check_table(database: LoginDatabase, keyring: Keyring) -> str:
    require_writable(database, keyring)
    return "user_logins takes rows."


def _check_queue(queue: LoginQueue) -> str:
    depth = queue.depth()
    return f"the queue answers: {depth.waiting} messages wait, {depth.in_flight} are in flight."


def _require_schema(database: LoginDatabase) -> None:
    current, needed = database.schema_revisions()
    if current != needed:
        raise NotReadyError(
            f"the database's schema is at revision {current or 'none'}, and this release needs"
            f" {needed}: run `fetch-mask migrate`."
        )


def _require_no_conflict(conflicts: tuple[str, ...]) -> None:
    if conflicts:
        raise NotReadyError(
            f"the masking keys do not fit the database: {'; '.join(conflicts)}. Equal values would"
            " silently stop being equal. Point MASKING_KEYSETS to the keysets that this database"
            " was filled with; `fetch-mask keys list` shows the keys."
        )
