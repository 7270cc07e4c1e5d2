"""`fetch-mask report`."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.instance import InstanceError, dagster_instance
from fetch_mask_assets.definitions import check_meanings
from fetch_mask_assets.defs.operations.check_history import read_checks
from fetch_mask_assets.operations.report.files import write_report
from fetch_mask_assets.operations.report.page import render_json, render_page
from fetch_mask_assets.operations.report.part import Facts, Period, Severity, Unreadable
from fetch_mask_assets.operations.report.postgres import ReportReader, RetentionDays
from fetch_mask_assets.operations.report.report import Report, period_of

DOES_NOT_HOLD = 1
"""The exit code of a report that was made, and in which something does not hold."""

NOT_ALL_READ = 3
"""The exit code of a report that was made, and of which a part could not be read."""

_PAGE = Path("privacy-report.html")
_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.command()
@click.option("--since", type=_MOMENT, help="First day or moment, UTC. Default: 30 days before.")
@click.option("--until", type=_MOMENT, help="The day or moment after the last, UTC. Default: now.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Where to write it: .json makes JSON, any other name a page. Default: {_PAGE}.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON; on standard output without --output.")
@click.option(
    "--expect-hash",
    metavar="HEX",
    help="The last hash of an earlier report, which the audit must have.",
)
def report(
    *,
    since: datetime | None,
    until: datetime | None,
    output: Path | None,
    as_json: bool,
    expect_hash: str | None,
) -> None:
    """Make the privacy report: one page to read, print and file.

    The first page has the verdict, a summary of the parts (checks, balance, keys, quarantine,
    erasures, retention, unmasking, audit) and what needs action; the details follow. Nothing raw
    and no token is in it. Needs no keys.

    The database is LOGIN_AUDITOR_DATABASE_URL, a member of login_ingest_auditor; if that is not set
    LOGIN_RECOVERY_DATABASE_URL, and then LOGIN_DATABASE_URL. Check results come from DAGSTER_HOME.
    The files can be read by you alone.

    Exit code 0 if everything holds, 3 if a part could not be read, 1 if something does not hold or
    no report was made.
    """
    made = _report(since, until, _hash(expect_hash))
    as_json = as_json or (output is not None and output.suffix == ".json")
    text = render_json(made) if as_json else render_page(made)
    if as_json and output is None:
        click.echo(text, nl=False)
    else:
        write_report(output or _PAGE, text)
        click.echo(f"The report is in {output or _PAGE}.", err=True)
    for each in made.faults:
        click.secho(f"{each.part}: {each.severity}: {each.description}", fg="red", err=True)
    sys.exit(_exit_code(made))


def _report(since: datetime | None, until: datetime | None, expected: bytes | None) -> Report:
    now, tuning = datetime.now(UTC), connections.tuning()
    period = period_of(_utc(since), _utc(until), now, tuning.report_days)
    reader = ReportReader(
        connections.auditor_database().url,
        RetentionDays(tuning.quarantine_retention_days, tuning.run_retention_days),
    )
    return reader.read(period, _checks(period), at=now, expected_hash=expected)


def _checks(period: Period) -> Facts | Unreadable:
    if not os.environ.get("DAGSTER_HOME"):
        return Unreadable("DAGSTER_HOME is not set: set it to the directory of Dagster's instance.")
    try:
        with dagster_instance() as instance:
            return read_checks(instance, check_meanings(), period)
    except InstanceError as error:
        return Unreadable(str(error))


def _exit_code(made: Report) -> int:
    if made.count(Severity.UNREADABLE):
        return NOT_ALL_READ
    return 0 if made.holds else DOES_NOT_HOLD


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _hash(text: str | None) -> bytes | None:
    try:
        return bytes.fromhex(text) if text else None
    except ValueError:
        raise click.BadParameter("must be hexadecimal.", param_hint="--expect-hash") from None
