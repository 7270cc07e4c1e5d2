"""`fetch-mask keys`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.findings import print_findings
from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES
from fetch_mask_assets.keys.keyset_change import key_states
from fetch_mask_assets.keys.postgres import key_usage
from fetch_mask_assets.keys.registry import KeyRow, key_rows
from fetch_mask_assets.keys.storage import Keysets
from fetch_mask_assets.operations.rotation import key_changes
from fetch_mask_assets.operations.rotation.key_changes import KeyReference
from fetch_mask_assets.pipeline.warehouse.readiness import findings

_FIELDS = click.option(
    "--field",
    "fields",
    multiple=True,
    type=click.Choice(KEYSET_NAMES),
    help="Only this keyset; repeatable. By default all.",
)
_FIELD = click.option(
    "--field",
    type=click.Choice(KEYSET_NAMES),
    help="The keyset of the key; required only if two keysets have a key with that id.",
)
_YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")


@click.group()
def keys() -> None:
    """Create, list, check, rotate and retire masking keys.

    Each masked field has a keyset with its name. The keyset quarantine seals rejected messages.
    MASKING_KEYSETS is their location: a directory of files of mode 0600, or
    aws-secretsmanager://PREFIX. With MASKING_KMS_KEY they are wrapped under that KMS key.

    The database is LOGIN_RECOVERY_DATABASE_URL, or LOGIN_DATABASE_URL if that is not set. The audit
    records every change. No command shows a key.
    """


@keys.command()
@_FIELDS
@_YES
@_JSON
def init(fields: Sequence[str], *, yes: bool, as_json: bool) -> None:
    """Create keysets, with one new key each.

    Creates all of them or none. Fails if one of the keysets exists, or if the database has keys of
    it: a new key would make equal values unequal. Back the keysets up: without them no token can be
    unmasked.
    """
    names = _names(fields)
    keysets, database = connections.keysets(), connections.recovery_database()
    _confirm(f"Create new keysets at {_locations(keysets, names)}?", yes=yes)
    created = key_changes.init_keysets(database, keysets, names)
    _print_keys(created, "Created the keyset of {keyset} with key {key_id}.", as_json=as_json)
    click.echo("Next: back the keysets up, then `fetch-mask keys check`.", err=True)


@keys.command("list")
@_FIELDS
@_JSON
def list_(fields: Sequence[str], *, as_json: bool) -> None:
    """List keys: status, first use, and the number of rows under each.

    \b
    primary    masks or seals new values, and opens them
    enabled    opens the values under it
    disabled   in the keyset, opens nothing; not retired
    retired    retired by `keys retire`
    absent     not in the keyset, but registered in the database or used by rows

    Reads all of user_logins and the quarantine to count the rows. Shows no key.
    """  # noqa: D301 (click's mark that keeps line breaks)
    keysets, database = connections.keysets(), connections.recovery_database()
    rows: list[KeyRow] = []
    for name in _names(fields):
        states, usage = key_states(name, keysets.read(name)), key_usage(database.url, name)
        rows += key_rows(name, states, usage.registered, usage.rows)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], default=str))
    else:
        Console().print(_table(rows))
    _warn_unreadable(rows)


@keys.command()
@_FIELDS
@_YES
@_JSON
def rotate(fields: Sequence[str], *, yes: bool, as_json: bool) -> None:
    """Add a new primary key to keysets; the old keys still open tokens.

    The next run masks new logins under the new key. A value can have one token under each key until
    `fetch-mask remask` has re-masked the old rows.
    """
    names = _names(fields)
    keysets, database = connections.keysets(), connections.recovery_database()
    _confirm(f"Add a new primary key to {_locations(keysets, names)}?", yes=yes)
    changes = (key_changes.rotate(database, keysets, name) for name in names)
    sentence = "The keyset of {keyset} has the new primary key {key_id}."
    _print_keys(changes, sentence, as_json=as_json)
    click.echo(
        "Next: back the keysets up, and copy them to every machine that has a copy. Then run"
        " `fetch-mask remask` (the job remask_logins). When `fetch-mask keys list` shows no rows"
        " under an old key, retire it with `fetch-mask keys retire`.",
        err=True,
    )


@keys.command()
@click.argument("key_id", type=click.IntRange(min=0, max=2**32 - 1))
@_FIELD
@_YES
@_JSON
def retire(key_id: int, field: str | None, *, yes: bool, as_json: bool) -> None:
    """Disable the key KEY_ID when it is no longer used.

    Fails if the key is primary, or if a row of user_logins or a quarantined message is under it.
    The keyset keeps the key, disabled; `keys restore` enables it again. Wait until every run that
    started before the rotation has ended.
    """
    keysets, database = connections.keysets(), connections.recovery_database()
    name = field or _keyset_of(keysets, key_id)
    _confirm(f"Retire key {key_id} of {name}?", yes=yes)
    key = key_changes.retire(database, keysets, name, key_id)
    _print_keys([key], "Key {key_id} of {keyset} is retired.", as_json=as_json)


@keys.command()
@click.argument("key_id", type=click.IntRange(min=0, max=2**32 - 1))
@_FIELD
@_YES
@_JSON
def restore(key_id: int, field: str | None, *, yes: bool, as_json: bool) -> None:
    """Enable the retired or disabled key KEY_ID: it opens tokens again.

    It does not become primary. The key must still be in its keyset.
    """
    keysets, database = connections.keysets(), connections.recovery_database()
    name = field or _keyset_of(keysets, key_id)
    _confirm(f"Restore key {key_id} of {name}?", yes=yes)
    key = key_changes.restore(database, keysets, name, key_id)
    _print_keys([key], "Key {key_id} of {keyset} opens tokens again.", as_json=as_json)


@keys.command()
@_JSON
def check(*, as_json: bool) -> None:
    """Check the keys before a run, without a change.

    The keysets open, the database answers and has this release's schema, and the keys are the
    registered ones. Exit code 1 if a check fails.
    """
    found = findings(connections.recovery_database(), connections.keysets())
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found]))
    else:
        print_findings(found)
    sys.exit(0 if all(each.ok for each in found) else 1)


def _names(fields: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in KEYSET_NAMES if not fields or name in fields)


def _locations(keysets: Keysets, names: Iterable[str]) -> str:
    return ", ".join(map(keysets.location, names))


def _confirm(question: str, *, yes: bool) -> None:
    if not yes:
        click.confirm(question, abort=True, err=True)


def _keyset_of(keysets: Keysets, key_id: int) -> str:
    names = [
        name
        for name in KEYSET_NAMES
        if key_id in {state.key_id for state in key_states(name, keysets.read(name))}
    ]
    if len(names) != 1:
        found = "no keyset has" if not names else f"the keysets of {' and '.join(names)} have"
        raise KeysetError(f"{found} a key {key_id}: give the keyset with --field.")
    return names[0]


def _print_keys(changed: Iterable[KeyReference], sentence: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(key) for key in changed]))
        return
    for key in changed:
        click.echo(sentence.format(keyset=key.keyset, key_id=key.key_id))


def _table(rows: Iterable[KeyRow]) -> Table:
    table = Table("keyset", "key", "status", "first used", "rows")
    for row in rows:
        first_used = f"{row.first_used_at:%Y-%m-%d %H:%M}" if row.first_used_at else "never"
        table.add_row(row.keyset, str(row.key_id), row.status, first_used, str(row.rows))
    return table


def _warn_unreadable(rows: Iterable[KeyRow]) -> None:
    for row in rows:
        if row.has_unreadable_rows:
            click.secho(
                f"Warning: {row.rows} rows are under key {row.key_id} of {row.keyset}, which is"
                f" {row.status}: they cannot be unmasked. Restore the key, or its keyset.",
                fg="yellow",
                err=True,
            )
