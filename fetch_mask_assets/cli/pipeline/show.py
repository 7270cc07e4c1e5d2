"""`fetch-mask show`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import click
from dagster import AssetCheckKey, AssetCheckSeverity, DagsterInstance
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.instance import dagster_instance
from fetch_mask_assets.definitions import defs
from fetch_mask_assets.defs.dagster_internals import AssetCheckExecutionRecordStatus
from fetch_mask_assets.masking.fields import COLUMN_FIELDS, MASKED_FIELDS, ClearField, MaskedField
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase

_HISTORY = 1_000


@click.command()
def show() -> None:
    """Show the balance, the checks and some rows of the table.

    Shows only what every reader of the table may see: tokens and counts.
    """
    console = Console()
    database = connections.database()
    console.print(_balance(database))
    console.print(_quarantine(database))
    console.print(_reasons(database))
    with dagster_instance() as instance:
        console.print(Group(*_checks(instance)))
    console.print(_latest_logins(database))
    for field in MASKED_FIELDS:
        console.print(_repeated(database, field))


def _balance(database: LoginDatabase) -> RenderableType:
    return _table(
        "Balance of all batches",
        ("batches", "received", "loaded", "quarantined", "already known"),
        database.query(
            "SELECT count(*), coalesce(sum(received), 0), coalesce(sum(loaded), 0),"
            " coalesce(sum(quarantined), 0), coalesce(sum(already_known), 0)"
            " FROM login_ingest.batch"
        ),
    )


def _quarantine(database: LoginDatabase) -> RenderableType:
    return _table(
        "Balance of the quarantine",
        ("quarantined", "replayed", "discarded", "expired", "erased", "waiting", "adds up"),
        database.query(
            "SELECT quarantined, replayed, discarded, expired, erased, waiting,"
            " CASE WHEN is_balanced THEN 'yes' ELSE 'NO' END FROM login_ingest.quarantine_balance"
        ),
    )


def _reasons(database: LoginDatabase) -> RenderableType:
    return _table(
        "Quarantined messages by reason",
        ("field", "reason", "messages"),
        database.query(
            "SELECT coalesce(field, '(body)'), reason, count(*) FROM login_ingest.quarantine"
            " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
        ),
    )


def _checks(instance: DagsterInstance) -> Iterator[RenderableType]:
    graph = defs.resolve_asset_graph()
    for asset in graph.toposorted_asset_keys:
        keys = sorted(key for key in graph.asset_check_keys if key.asset_key == asset)
        if keys:
            yield _table(
                f"Checks of {asset.to_user_string()}",
                ("check", "last", "passed", "failed", "not run"),
                [_check_row(instance, key) for key in keys],
            )


def _check_row(instance: DagsterInstance, key: AssetCheckKey) -> tuple[object, ...]:
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=_HISTORY)
    # Checks of a run that failed or was stopped stay planned.
    results = [
        record.event.dagster_event.asset_check_evaluation_data
        for record in history
        if record.status is not AssetCheckExecutionRecordStatus.PLANNED
        and record.event
        and record.event.dagster_event
    ]
    passed = sum(result.passed for result in results)
    last = _verdict(results[0].passed, results[0].severity) if results else "not yet run"
    counts = (passed, len(results) - passed, len(history) - len(results))
    return (key.name, last, *counts)


def _verdict(passed: bool, severity: AssetCheckSeverity) -> Text:  # noqa: FBT001 (a result)
    if passed:
        return Text("passed", "green")
    is_warning = severity is AssetCheckSeverity.WARN
    return Text("warning", "yellow") if is_warning else Text("failed", "red")


def _latest_logins(database: LoginDatabase) -> RenderableType:
    return _table(
        "Latest logins (the ends of the tokens)",
        [
            name.replace("_", " ")
            for name in (*(field.name for field in COLUMN_FIELDS), "create_date")
        ],
        database.query(
            f"SELECT {', '.join(map(_end_of, COLUMN_FIELDS))}, to_char(create_date, 'MM-DD')"  # noqa: S608 (declared names)
            " FROM user_logins ORDER BY create_date DESC NULLS LAST LIMIT 8"
        ),
    )


def _end_of(field: ClearField | MaskedField) -> str:
    """A column in SQL, short enough for a table beside others."""
    if isinstance(field, MaskedField):
        return f"'…' || right({field.column}, 8)"
    return f"left({field.column}::text, 8)"


def _repeated(database: LoginDatabase, field: MaskedField) -> RenderableType:
    return _table(
        f"Most repeated {field.label}s",
        (field.column, "logins", "users"),
        database.query(
            f"SELECT {field.column}, count(*), count(DISTINCT user_id)"  # noqa: S608 (declared names)
            " FROM user_logins GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 DESC, 1 LIMIT 5"
        ),
    )


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        # Names stay whole, so that they can be searched for.
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    return table if table.row_count else Text(f"{title}: none", "italic")


def _cell(value: object) -> Text:
    # Text is never parsed as markup: a user id may hold any characters.
    if isinstance(value, Text):
        return value
    return Text("" if value is None else str(value))
