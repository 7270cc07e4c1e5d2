"""Dagster's history of asset checks, read page by page; it outlives the runs."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from dagster import (
    AssetCheckKey,
    AssetCheckSeverity,
    DagsterError,
    DagsterInstance,
    RunsFilter,
)
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from fetch_mask_assets.defs.dagster_internals import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from fetch_mask_assets.defs.local_runs import UNFINISHED_STATUSES
from fetch_mask_assets.operations.report.checks import (
    CheckEvent,
    CheckIdentity,
    CheckTally,
    Outcome,
    check_facts,
    tally,
)
from fetch_mask_assets.operations.report.part import Facts, Period, Unreadable

STORAGE_ERRORS = (DagsterError, DagsterPostgresException, SQLAlchemyError, OSError, ValueError)
"""The errors of Dagster's storage."""

MAX_EVENTS = 100_000
"""Events of one check that a report counts."""

_PAGE = 500

# The history is in the order of planning; an evaluation may come as much later.
_MAX_RUN_SECONDS = timedelta(days=1)


def read_checks(
    instance: DagsterInstance, meanings: Mapping[AssetCheckKey, str], period: Period
) -> Facts | Unreadable:
    """Reads the outcomes of a period; never raises.

    Args:
        instance: the Dagster instance.
        meanings: the checks, with the meaning of each.
        period: ends no later than now.
    """
    try:
        # Read before the history, so that a check which ends meanwhile is evaluated or under way.
        unfinished = frozenset(instance.get_run_ids(RunsFilter(statuses=UNFINISHED_STATUSES)))
        tallies = tuple(
            _tally(instance, key, meanings[key], period, unfinished) for key in sorted(meanings)
        )
    except STORAGE_ERRORS as error:
        return Unreadable(
            f"Dagster's check history cannot be read ({type(error).__name__}): check DAGSTER_HOME,"
            " its dagster.yaml and its database."
        )
    return _part(tallies)


def _part(tallies: tuple[CheckTally, ...]) -> Facts | Unreadable:
    known = [each.known_since for each in tallies if each.known_since]
    if not any(each.by_day for each in tallies):
        reach = f"It reaches back to {min(known):%Y-%m-%d %H:%M} UTC." if known else "It is empty."
        return Unreadable(
            f"Dagster's check history has no check of the period. {reach} Check DAGSTER_HOME and"
            " the period."
        )
    return check_facts(tallies)


def _tally(
    instance: DagsterInstance,
    key: AssetCheckKey,
    description: str,
    period: Period,
    unfinished: frozenset[str],
) -> CheckTally:
    check = CheckIdentity(key.asset_key.to_user_string(), key.name, description)
    events = _events(instance, key, period, unfinished)
    return tally(check, events, _known_since(instance, key), max_events=MAX_EVENTS)


def _events(
    instance: DagsterInstance, key: AssetCheckKey, period: Period, unfinished: frozenset[str]
) -> Iterator[CheckEvent]:
    for records in _pages(instance, key):
        events = [_event(record, unfinished) for record in records if record.event]
        yield from (event for event in events if period.since <= event.at < period.until)
        if all(event.at < period.since - _MAX_RUN_SECONDS for event in events):
            return


def _pages(
    instance: DagsterInstance, key: AssetCheckKey
) -> Iterable[list[AssetCheckExecutionRecord]]:
    cursor: int | None = None
    while records := _history(instance, key, _PAGE, cursor):
        yield records
        cursor = records[-1].id


def _history(
    instance: DagsterInstance, key: AssetCheckKey, limit: int, cursor: int | None
) -> list[AssetCheckExecutionRecord]:
    storage = instance.event_log_storage
    return list(storage.get_asset_check_execution_history(key, limit=limit, cursor=cursor))


def _event(record: AssetCheckExecutionRecord, unfinished: frozenset[str]) -> CheckEvent:
    return CheckEvent(_moment(record), _outcome(record, unfinished))


def _outcome(record: AssetCheckExecutionRecord, unfinished: frozenset[str]) -> Outcome:
    if record.status is AssetCheckExecutionRecordStatus.PLANNED:
        return Outcome.UNDER_WAY if record.run_id in unfinished else Outcome.NOT_EVALUATED
    if record.status is AssetCheckExecutionRecordStatus.SUCCEEDED:
        return Outcome.PASSED
    evaluation = record.evaluation
    is_warning = evaluation is not None and evaluation.severity is AssetCheckSeverity.WARN
    return Outcome.WARNED if is_warning else Outcome.FAILED


def _moment(record: AssetCheckExecutionRecord) -> datetime:
    # The record's time is in the time zone of its writer; the event's is in UTC.
    at = record.event.timestamp if record.event else record.create_timestamp
    return datetime.fromtimestamp(at, UTC)


def _known_since(instance: DagsterInstance, key: AssetCheckKey) -> datetime | None:
    """The time of the oldest record, found by halving: reading up to it would be reading all."""
    newest = _history(instance, key, 1, None)
    if not newest:
        return None
    oldest, below = newest[0], 0
    while below + 1 < oldest.id:
        middle = (below + oldest.id) // 2
        older = _history(instance, key, 1, middle + 1)
        if older:
            oldest = older[0]
        else:
            below = middle
    return _moment(oldest)
