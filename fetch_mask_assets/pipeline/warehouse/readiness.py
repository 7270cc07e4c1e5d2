"""Whether everything that a run needs is well, asked before anything is received.

A receive that cannot be used burns the message's receive count, and in the end sends good
messages to the dead-letter queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from fetch_mask_assets.errors import FetchMaskError, NotReadyError
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.postgres import retired_keys
from fetch_mask_assets.keys.registry import retired_primaries
from fetch_mask_assets.keys.storage import Keysets, read_keyring
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS
from fetch_mask_assets.pipeline.queue.sqs import LoginQueue
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase

# Of a network that is for documentation. Source: RFC 5737
_PROBE_IP = "192.0.2.0"


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
    _require_no_conflict(database.register_keys(keyring.check_values))


def require_writable(database: LoginDatabase, keyring: Keyring) -> None:
    """Makes sure that the table takes rows: tries one, of nobody, and takes it back.

    Raises:
        DatabaseError: it takes none.
    """
    login = {
        "user_id": "fetch_mask_assets",
        "device_type": "none",
        "masked_ip": keyring.ip.mask(_PROBE_IP),
        "masked_device_id": keyring.device_id.mask("none"),
        "locale": None,
        "app_version": None,
        "create_date": datetime.now(UTC).date(),
    }
    database.require_writable([login[column] for column in LOGIN_COLUMNS])


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


def require_all_ok(found: Iterable[Finding]) -> None:
    """Refuses to go on if something is not ready.

    Raises:
        NotReadyError: names each finding that is not ok.
    """
    not_ok = [f"[{each.name}] {each.description}" for each in found if not each.ok]
    if not_ok:
        raise NotReadyError(f"Nothing was received: {' '.join(not_ok)}")


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
    _require_no_conflict((*database.key_conflicts(keyring.check_values), *retired))
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
