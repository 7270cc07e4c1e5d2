"""`fetch-mask remask`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import click
from dagster import ExecuteInProcessResult
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.instance import dagster_instance, describe_failure
from fetch_mask_assets.definitions import defs
from fetch_mask_assets.defs.operations.remask import REMASK_LOGINS, REMASKED_LOGINS
from fetch_mask_assets.errors import DatabaseError, FetchMaskError
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.masking.fields import MASKED_FIELDS
from fetch_mask_assets.operations.rotation.postgres import TokenTable

_REFRESH_SECONDS = 2.0


class RemaskError(FetchMaskError):
    """The run failed, or one of its checks failed."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome of a run: its counts, and the remedies of the failed checks by name."""

    counts: Mapping[str, int]
    failed_checks: Mapping[str, str]

    def as_json(self) -> str:
        return json.dumps({**self.counts, "failed_checks": sorted(self.failed_checks)})


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--verbose", is_flag=True, help="Print Dagster's log to standard error.")
def remask(*, as_json: bool, verbose: bool) -> None:
    """Bring the rows of user_logins under the primary keys, after a rotation.

    Runs the Dagster job remask_logins in this process. Ingestion can continue meanwhile. You can
    stop the command at any point and run it again: it continues with the remaining rows. If no row
    is left it only checks. Readers of login_ingest.user_logins_linked see equal values as equal
    throughout.

    The database is LOGIN_RECOVERY_DATABASE_URL, or LOGIN_DATABASE_URL if that is not set. The login
    must be a member of login_ingest_recovery. MASKING_KEYSETS must be the rotated keysets, with
    every registered key. Tokens that do not open are counted and not changed.

    Exit code 1 if the run or one of its checks fails: rows and groups of equal values are kept, no
    row is left under an old key, every token opens.
    """
    table = TokenTable(connections.recovery_database().url)
    with _progress(table, read_keyring(connections.keysets())):
        outcome = _run(verbose=verbose)
    click.echo(outcome.as_json() if as_json else "\n".join(_sentences(outcome)))
    if outcome.failed_checks:
        failed = " ".join(f"[{name}] {remedy}" for name, remedy in outcome.failed_checks.items())
        raise RemaskError(f"checks failed after the re-masking. {failed}")


def _run(*, verbose: bool) -> _Outcome:
    level = "INFO" if verbose else "CRITICAL"
    with dagster_instance() as instance:
        result = defs.resolve_job_def(REMASK_LOGINS).execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": level}}}},
        )
    if not result.success:
        raise RemaskError(
            f"{describe_failure(result)} No row is lost: run `fetch-mask remask` again."
        )
    return _outcome(result)


def _outcome(result: ExecuteInProcessResult) -> _Outcome:
    [event] = result.asset_materializations_for_node(REMASKED_LOGINS.to_python_identifier())
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    return _Outcome(
        _numbers({name: each.value for name, each in event.metadata.items()}),
        {check.check_name: check.description or "" for check in failed},
    )


def _numbers(metadata: Mapping[str, object]) -> dict[str, int]:
    return {name: value for name, value in metadata.items() if isinstance(value, int)}


def _sentences(outcome: _Outcome) -> Iterator[str]:
    counts = outcome.counts
    for name in (field.name for field in MASKED_FIELDS):
        yield (
            f"{name}: {counts[f'{name}_tokens_replaced']} tokens replaced in"
            f" {counts[f'{name}_rows_replaced']} rows; {counts[f'{name}_rows_after']} rows in"
            f" {counts[f'{name}_groups_after']} groups of equal values,"
            f" {counts[f'{name}_rows_left']} rows left under other keys."
        )
    if not outcome.failed_checks:
        yield "Every check passed."


@contextmanager
def _progress(table: TokenTable, keyring: Keyring) -> Iterator[None]:
    """Display a bar of remaining rows for each field; silent without a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_display, args=(table, keyring, console, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _display(table: TokenTable, keyring: Keyring, console: Console, stop: threading.Event) -> None:
    with Progress(*_columns(), console=console, transient=True) as progress:
        bars = [
            (masker, progress.add_task(f"rows, {masker.field.name}", total=0))
            for masker in keyring.maskers
        ]
        wait = 0.0
        while not stop.wait(wait):
            started = time.monotonic()
            with suppress(DatabaseError):  # the run reports it
                for masker, bar in bars:
                    _update(progress, bar, table.rows_left(masker))
            # The counts must not take more than a tenth of the time.
            wait = max(_REFRESH_SECONDS, 10 * (time.monotonic() - started))


def _update(progress: Progress, bar: TaskID, rows_left: int) -> None:
    total = max(rows_left, int(progress.tasks[bar].total or 0))
    progress.update(bar, total=total, completed=total - rows_left)


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
