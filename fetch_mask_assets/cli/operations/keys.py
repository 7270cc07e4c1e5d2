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
from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES
from fetch_mask_assets.keys.keyset_change import key_states
from fetch_mask_assets.keys.postgres import key_usage
from fetch_mask_assets.keys.registry import KeyRow, key_rows
from fetch_mask_assets.keys.storage import Keysets
from fetch_mask_assets.operations.rotation import key_changes
from fetch_mask_assets.operations.rotation.key_changes import KeyChange
from fetch_mask_assets.pipeline.warehouse.readiness import Finding, findings

_FIELDS = click.option(
    "--field",
    "fields",
    multiple=True,
    type=click.Choice(KEYSET_NAMES),
    help="Only this keyset; may be given more than once. Without it: all.",
)
_FIELD = click.option(
    "--field",
    type=click.Choice(KEYSET_NAMES),
    help="The keyset that has the key; needed only if two have a key of that id.",
)
_YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")


@click.group()
def keys() -> None:
    """Make, list, check, rotate and retire masking keys.

    Each masked field has a keyset of its name, and the keyset quarantine seals rejected messages.
    They are kept where MASKING_KEYSETS says: a directory of files of mode 0600, or
    aws-secretsmanager://PREFIX. With MASKING_KMS_KEY they are wrapped under that KMS key.

    The database is LOGIN_RECOVERY_DATABASE_URL, or LOGIN_DATABASE_URL where that is not set.
    Every change is recorded in the audit. No command shows a key.
    """


@keys.command()
@_FIELDS
@_YES
@_JSON
def init(fields: Sequence[str], *, yes: bool, as_json: bool) -> None:
    """Make keysets that do not exist yet, with one new key each.

    Makes all that were asked for or none. Refuses where a keyset exists, and where the database
    knows keys of it: values masked before and after would not be equal any more. Back them up:
    without its keyset no token can be unmasked.
    """
    names = _names(fields)
    keysets, database = connections.keysets(), connections.recovery_database()
    _confirm(f"Make new keysets at {_places(keysets, names)}?", yes=yes)
    made = key_changes.init_keysets(database, keysets, names)
    _print_changes(made, "Made the keyset of {keyset} with key {key_id}.", as_json=as_json)
    click.echo("Next: back the keysets up, then `fetch-mask keys check`.", err=True)


@keys.command("list")
@_FIELDS
@_JSON
def list_(fields: Sequence[str], *, as_json: bool) -> None:
    """List keys: status, first use, and how many rows are under each.

    \b
    primary    masks or seals, and opens
    enabled    opens what is under it
    disabled   in the keyset, and does not open; not retired either
    retired    retired by `keys retire`
    absent     not in the keyset, though the database knows it or has rows under it

    Counts by reading all of user_logins and the quarantine. Shows no key.
    """  # noqa: D301 (click's mark for lines that stay as they are)
    keysets, database = connections.keysets(), connections.recovery_database()
    lines: list[KeyRow] = []
    for name in _names(fields):
        states, usage = key_states(name, keysets.read(name)), key_usage(database.url, name)
        lines += key_rows(name, states, usage.registered, usage.rows)
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], default=str))
    else:
        Console().print(_table(lines))
    _warn_closed(lines)


@keys.command()
@_FIELDS
@_YES
@_JSON
def rotate(fields: Sequence[str], *, yes: bool, as_json: bool) -> None:
    """Add a new key to keysets and make it primary; the old keys go on opening tokens.

    From the next run on new logins are masked under the new key. A value that occurs under both
    keys has two tokens until the job remask_logins has re-masked the old rows.
    """
    names = _names(fields)
    keysets, database = connections.keysets(), connections.recovery_database()
    _confirm(f"Add a new primary key to {_places(keysets, names)}?", yes=yes)
    changes = (key_changes.rotate(database, keysets, name) for name in names)
    sentence = "The keyset of {keyset} has the new primary key {key_id}."
    _print_changes(changes, sentence, as_json=as_json)
    click.echo(
        "Next: back the keysets up, and bring them to every machine that has a copy. Then run the"
        " job remask_logins; when `fetch-mask keys list` shows no rows under an old key,"
        " `fetch-mask keys retire` it.",
        err=True,
    )


@keys.command()
@click.argument("key_id", type=click.IntRange(min=0, max=2**32 - 1))
@_FIELD
@_YES
@_JSON
def retire(key_id: int, field: str | None, *, yes: bool, as_json: bool) -> None:
    """Disable the key KEY_ID, which nothing is under any more.

    Refuses while it is primary, and while any row of user_logins or any quarantined message is
    under it. The keyset keeps it, disabled: `keys restore` brings it back. Wait until every run
    that started before the rotation has ended.
    """
    keysets, database = connections.keysets(), connections.recovery_database()
    name = field or _keyset_of(keysets, key_id)
    _confirm(f"Retire key {key_id} of {name}?", yes=yes)
    change = key_changes.retire(database, keysets, name, key_id)
    _print_changes([change], "Key {key_id} of {keyset} is retired.", as_json=as_json)


@keys.command()
@click.argument("key_id", type=click.IntRange(min=0, max=2**32 - 1))
@_FIELD
@_YES
@_JSON
def restore(key_id: int, field: str | None, *, yes: bool, as_json: bool) -> None:
    """Bring the retired or disabled key KEY_ID back: it opens tokens again.

    It does not become primary. The key must still be in its keyset.
    """
    keysets, database = connections.keysets(), connections.recovery_database()
    name = field or _keyset_of(keysets, key_id)
    _confirm(f"Restore key {key_id} of {name}?", yes=yes)
    change = key_changes.restore(database, keysets, name, key_id)
    _print_changes([change], "Key {key_id} of {keyset} opens tokens again.", as_json=as_json)


@keys.command()
@_JSON
def check(*, as_json: bool) -> None:
    """Check what a run needs of the keys; changes nothing.

    That the keysets open, that the database answers and has this release's schema, and that the
    keys are those that its tokens were made with. Exit code 1 if anything is not well.
    """
    found = findings(connections.recovery_database(), connections.keysets())
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found]))
    else:
        _print_findings(found)
    sys.exit(0 if all(each.ok for each in found) else 1)


def _names(fields: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in KEYSET_NAMES if not fields or name in fields)


def _places(keysets: Keysets, names: Iterable[str]) -> str:
    return ", ".join(map(keysets.place, names))


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
        raise KeysetError(f"{found} a key {key_id}: name the keyset with --field.")
    return names[0]


def _print_changes(changes: Iterable[KeyChange], sentence: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(change) for change in changes]))
        return
    for change in changes:
        click.echo(sentence.format(keyset=change.keyset, key_id=change.key_id))


def _table(lines: Iterable[KeyRow]) -> Table:
    table = Table("keyset", "key", "status", "first used", "rows")
    for line in lines:
        first_used = f"{line.first_used_at:%Y-%m-%d %H:%M}" if line.first_used_at else "never"
        table.add_row(line.keyset, str(line.key_id), line.status, first_used, str(line.rows))
    return table


def _warn_closed(lines: Iterable[KeyRow]) -> None:
    for line in lines:
        if line.has_closed_rows:
            click.secho(
                f"Warning: {line.rows} rows are under key {line.key_id} of {line.keyset}, which is"
                f" {line.status}: they cannot be unmasked. Restore the key, or its keyset.",
                fg="yellow",
                err=True,
            )


def _print_findings(found: Iterable[Finding]) -> None:
    for each in found:
        mark, color = ("ok  ", "green") if each.ok else ("FAIL", "red")
        click.echo(f"{click.style(mark, fg=color)}  {each.name}: {each.description}")
