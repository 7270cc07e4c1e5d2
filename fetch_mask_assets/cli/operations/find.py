"""`fetch-mask find`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TypeVar

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.operations.unmask import counted, printable
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.masking.fields import CLEAR_COLUMNS, MASKED_FIELDS
from fetch_mask_assets.operations.unmasking.find import FindQuery, FindRefusedError, find_queries
from fetch_mask_assets.operations.unmasking.postgres import Found, FoundRow, Unmasking

_Command = TypeVar("_Command", bound=Callable[..., None])


def _field_options(command: _Command) -> _Command:
    """Adds an option for each masked field, by its name."""
    for field in reversed(MASKED_FIELDS):
        text = f"The values are {field.label}s."
        command = click.option(field.option, field.name, is_flag=True, help=text)(command)
    return command


@click.command(epilog="Example: fetch-mask find --ip < addresses.txt")
@_field_options
@click.option(
    "--rows", default=100, show_default=True, type=click.IntRange(0), help="Rows to show, at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def find(*, rows: int, as_json: bool, **is_given: bool) -> None:
    """Find the rows of known values of a masked field.

    Reads the values from standard input, one a line, and never from the command line, which other
    processes can see; at a terminal it asks for them without showing them, until an empty one.
    Looks for each value under every enabled key of the field, and prints by the number of its line
    how many rows hold it, and the newest rows without their masked columns. The look-up is in the
    audit, with digests of the tokens and counts, before anything is printed. Needs the keysets
    (MASKING_KEYSETS) and membership of login_ingest_recovery (LOGIN_RECOVERY_DATABASE_URL).
    """
    name = _field_name(is_given)
    desk = Unmasking(connections.recovery_database().url)
    limit = connections.tuning().unmask_limit
    keyring = read_keyring(connections.keysets())
    masker = keyring.masker(name)
    wanted = find_queries(masker, _values(), limit)
    tokens = sorted({token for each in wanted for token in each.tokens})
    found = desk.find(masker.field, tokens, rows)
    click.echo(_json(wanted, found) if as_json else _text(wanted, found))


def _field_name(is_given: Mapping[str, bool]) -> str:
    names = [name for name, given in is_given.items() if given]
    if len(names) != 1:
        raise click.UsageError(f"give one of {', '.join(each.option for each in MASKED_FIELDS)}.")
    return names[0]


def _values() -> Iterator[str]:
    if sys.stdin.isatty():
        yield from iter(_ask, "")
        return
    try:
        for line in sys.stdin:
            yield line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise FindRefusedError("standard input is not UTF-8.") from None


def _ask() -> str:
    return str(
        click.prompt(
            "Value (not shown; empty to end)",
            default="",
            show_default=False,
            hide_input=True,
            err=True,
        )
    )


def _text(wanted: Sequence[FindQuery], found: Found) -> str:
    counts = [f"line {each.line}: {counted(each.count(found.counts), 'row')}" for each in wanted]
    shown = ["", "  ".join(("line", *CLEAR_COLUMNS))]
    rows = [_row(_line(row, wanted), row) for row in found.rows]
    hidden = sum(found.counts.values()) - len(rows)
    more = [f"Not shown, see --rows: {counted(hidden, 'row')}."] if hidden else []
    return "\n".join(counts + (shown + rows if rows else []) + more)


def _row(line: int, row: FoundRow) -> str:
    cells = (line, *row.columns.values())
    return "  ".join("-" if cell is None else printable(str(cell)) for cell in cells)


def _json(wanted: Sequence[FindQuery], found: Found) -> str:
    answer = {
        "lines": [asdict(each) | {"rows": each.count(found.counts)} for each in wanted],
        "rows": [
            {"token": row.token, **row.columns, "line": _line(row, wanted)} for row in found.rows
        ],
    }
    return json.dumps(answer)


def _line(row: FoundRow, wanted: Sequence[FindQuery]) -> int:
    return next(each.line for each in wanted if row.token in each.tokens)
