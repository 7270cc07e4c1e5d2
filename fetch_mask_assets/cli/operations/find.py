"""`fetch-mask find`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TypeVar

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.wording import counted, printable
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.masking.fields import CLEAR_COLUMNS, MASKED_FIELDS
from fetch_mask_assets.operations.unmasking.find import (
    FindQuery,
    FindRefusedError,
    FindResult,
    FoundRow,
    distinct_tokens,
    find_queries,
    line_of,
)
from fetch_mask_assets.operations.unmasking.postgres import Unmasking

_HEADING = "  ".join(("line", *CLEAR_COLUMNS))

_Command = TypeVar("_Command", bound=Callable[..., None])


def _field_options(command: _Command) -> _Command:
    """Adds an option for each masked field, by its name."""
    for field in reversed(MASKED_FIELDS):
        text = f"The values are {field.label}s."
        command = click.option(field.option, field.name, is_flag=True, help=text)(command)
    return command


@click.command(epilog="Example: `fetch-mask find --ip < addresses.txt`.")
@_field_options
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(0), help="Maximum rows to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def find(*, limit: int, as_json: bool, **is_given: bool) -> None:
    """Find the rows of known values of a masked field.

    Reads the values from standard input, one per line. At a terminal it prompts for them without
    showing them; an empty value ends the input. Values are never arguments, which other processes
    can see.

    Searches for each value under every enabled key of the field. Prints, for each input line, the
    number of rows, and then the newest rows without their masked columns. The find is committed to
    the audit, with digests of the tokens and counts, before anything is printed. Needs the keysets
    (MASKING_KEYSETS) and membership of login_ingest_recovery (LOGIN_RECOVERY_DATABASE_URL).
    """
    name = _field_name(is_given)
    unmasking = Unmasking(connections.recovery_database().url)
    max_values = connections.tuning().max_recovery_values
    keyring = read_keyring(connections.keysets())
    masker = keyring.masker(name)
    queries = find_queries(masker, _values(), max_values)
    result = unmasking.find(masker.field, distinct_tokens(queries), limit)
    click.echo(_json(queries, result) if as_json else _text(queries, result))


def _field_name(is_given: Mapping[str, bool]) -> str:
    names = [name for name, given in is_given.items() if given]
    if len(names) != 1:
        raise click.UsageError(f"Give one of {', '.join(each.option for each in MASKED_FIELDS)}.")
    return names[0]


def _values() -> Iterator[str]:
    if sys.stdin.isatty():
        yield from iter(_prompt, "")
        return
    try:
        for line in sys.stdin:
            yield line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise FindRefusedError("standard input is not UTF-8.") from None


def _prompt() -> str:
    return str(
        click.prompt(
            "Value (not shown; empty to end)",
            default="",
            show_default=False,
            hide_input=True,
            err=True,
        )
    )


def _text(queries: Sequence[FindQuery], result: FindResult) -> str:
    counts = [f"line {each.line}: {_rows(each.row_count(result.counts))}" for each in queries]
    rows = [_row(line_of(row, queries), row) for row in result.rows]
    table = ["", _HEADING, *rows] if rows else []
    omitted = result.omitted_rows
    more = [f"Not shown: {_rows(omitted)}. See --limit."] if omitted else []
    return "\n".join(counts + table + more)


def _rows(count: int) -> str:
    return counted(count, "row", "rows")


def _row(line: int, row: FoundRow) -> str:
    cells = (line, *row.columns.values())
    return "  ".join("-" if cell is None else printable(str(cell)) for cell in cells)


def _json(queries: Sequence[FindQuery], result: FindResult) -> str:
    answer = {
        "values": [asdict(each) | {"row_count": each.row_count(result.counts)} for each in queries],
        "rows": [
            {"token": row.token, **row.columns, "line": line_of(row, queries)}
            for row in result.rows
        ],
    }
    return json.dumps(answer)
