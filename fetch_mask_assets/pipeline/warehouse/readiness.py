"""Whether everything that a run needs is well, asked before anything is received.

A receive that cannot be used burns the message's receive count, and in the end sends good
messages to the dead-letter queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from fetch_mask_assets.pipeline.queue.sqs import LoginQueue
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a run needs: whether it is well, and what to know or to do."""

    name: str
    ok: bool
    description: str


def require_ready(database: LoginDatabase, keyring: Keyring) -> None:
    """Makes sure that a batch can be committed, and registers keys that are new.

    Raises:
        NotReadyError: the schema or the keys do not fit.
        DatabaseError: the database cannot be reached.
    """
    _require_schema(database)
    _require_no_conflict(retired_primaries(retired_keys(database.url), keyring.primary_key_ids))
    _require_no_conflict(register_keys(database.url, keyring.check_values))


def require_writable(database: LoginDatabase, keyring: Keyring) -> None:
    """Makes sure that the table takes rows: tries one, of nobody, and takes it back.

    Raises:
        DatabaseError: it takes none.
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
    """What is well and what is not, without changing anything.

    `commits` asks, where all else is well, whether the table takes rows too: as the loader.
    """
    # Once for all questions: keysets in AWS cost a call for each.
    keyring = cache(lambda: read_keyring(keysets))
    questions: list[tuple[str, Callable[[], str]]] = [
        ("masking keys", lambda: _ask_keys(keyring())),
        ("database", lambda: _ask_schema(database)),
        ("key registry", lambda: _ask_registry(database, keyring())),
    ]
    if queue is not None:
        questions.append(("queue", lambda: _ask_queue(queue)))
    found = tuple(_finding(name, ask) for name, ask in questions)
    if not commits or not all(each.ok for each in found):
        return found
    return (*found, _finding("table", lambda: _ask_table(database, keyring())))


def _finding(name: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, description=ask())
    except FetchMaskError as error:
        return Finding(name, ok=False, description=str(error))


def _ask_keys(keyring: Keyring) -> str:
    primaries = ", ".join(f"{each.field.name} {each.primary_key_id}" for each in keyring.maskers)
    return f"the keysets open; primary keys: {primaries}."


def _ask_schema(database: LoginDatabase) -> str:
    _require_schema(database)
    return "the database answers, and its schema is the one of this release."


def _ask_registry(database: LoginDatabase, keyring: Keyring) -> str:
    retired = retired_primaries(retired_keys(database.url), keyring.primary_key_ids)
    _require_no_conflict((*registry_conflicts(database.url, keyring.check_values), *retired))
    return "the keys are the ones that the table's tokens were made with."


def _ask_table(database: LoginDatabase, keyring: Keyring) -> str:
    require_writable(database, keyring)
    return "user_logins takes rows."


def _ask_queue(queue: LoginQueue) -> str:
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
            " was filled with; `fetch-mask keys list` says which keys those are."
        )
