"""Upgrade the MD5 digests of user_logins to tokens, field by field; and the dry run of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Protocol

from fetch_mask_assets.audit.postgres import record
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.operations.md5_upgrade.postgres import (
    DigestTable,
    ReplaceCount,
    upgrade_lease,
)
from fetch_mask_assets.operations.md5_upgrade.token_search import (
    SearchPlan,
    clear_progress,
    count_recoverable,
    find_tokens,
    remaining_plan,
)
from fetch_mask_assets.postgres.sessions import LONG_RECORD, open_session


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldReport:
    """The outcome for one field. Digests are distinct; `seconds` is the time of the search."""

    field: str
    digests: int
    recovered: int
    rows_changed: int
    digests_left: int
    rows_left: int
    values_tried: int
    seconds: float


class ProgressDisplay(Protocol):
    """Displays the progress of an upgrade."""

    def search(self, field: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """Return a context whose callable receives the number of values tried since its last call.

        Args:
            field: the field's name.
            size: the number of values to try.
        """

    def replacement(self, field: str) -> AbstractContextManager[Callable[[ReplaceCount], None]]:
        """Return a context whose callable receives the count of all digests replaced so far."""


def upgrade(
    url: str,
    maskers: Sequence[FieldMasker],
    plans: Mapping[str, SearchPlan],
    display: ProgressDisplay,
    *,
    with_links: bool,
) -> list[FieldReport]:
    """Replace the digests of fields by tokens, with start and end in the audit.

    Args:
        url: the libpq URL of a member of recovery.
        maskers: the maskers of the fields to upgrade.
        plans: the values to try, by field name.
        display: displays the progress.
        with_links: link each digest to its token.

    Raises:
        UpgradeRunningError: another upgrade is running.
        DatabaseError: the database refused; committed transactions are kept.
        ValuesFileError: the file of values cannot be read.
        SearchError: a worker died.
    """
    sizes = {name: plan.size for name, plan in plans.items()}
    with upgrade_lease(url):
        _record("upgrade-md5.begin-run", url, {"values_to_try": sizes, "links": with_links})
        reports = [
            _upgrade_field(
                DigestTable(url, each.field),
                each,
                plans[each.field.name],
                display,
                with_links=with_links,
            )
            for each in maskers
        ]
        _record("upgrade-md5.finish-run", url, {"fields": [asdict(report) for report in reports]})
        for each in maskers:
            clear_progress(DigestTable(url, each.field), plans[each.field.name])
    return reports


def dry_run(table: DigestTable, plan: SearchPlan, display: ProgressDisplay) -> FieldReport:
    """Report the digests that an upgrade would recover, without a write.

    Raises:
        DatabaseError: the digests cannot be read.
        ValuesFileError: the file of values cannot be read.
        SearchError: a worker died.
    """
    before = table.count()
    with display.search(table.field.name, plan.size) as on_progress:
        meter = _Meter(on_progress)
        recovered = count_recoverable(table.digests(), plan, meter.add)
    return FieldReport(
        field=table.field.name,
        digests=before.digests,
        recovered=recovered,
        rows_changed=0,
        digests_left=before.digests - recovered,
        rows_left=before.rows,
        values_tried=meter.values,
        seconds=meter.seconds,
    )


def replace_all(
    table: DigestTable, *, with_links: bool, on_progress: Callable[[ReplaceCount], None]
) -> ReplaceCount:
    """Replace every digest that has a recorded match, in bounded transactions.

    Args:
        table: the field's digests.
        with_links: link each digest to its token.
        on_progress: called after each transaction with the count of all so far.

    Raises:
        DatabaseError: the database refused; committed transactions are kept.
    """
    replaced = ReplaceCount()
    job = table.begin_job()
    if job is None:
        return replaced
    while (more := table.replace_next(job, with_links=with_links)) is not None:
        replaced += more
        on_progress(replaced)
    table.finish_job(job)
    return replaced


def _upgrade_field(
    table: DigestTable,
    masker: FieldMasker,
    plan: SearchPlan,
    display: ProgressDisplay,
    *,
    with_links: bool,
) -> FieldReport:
    before, remaining = table.count(), remaining_plan(table, plan)
    with display.search(table.field.name, remaining.size) as on_progress:
        meter = _Meter(on_progress)
        find_tokens(table, masker, remaining, meter.add)
    with display.replacement(table.field.name) as on_replaced:
        replaced = replace_all(table, with_links=with_links, on_progress=on_replaced)
    after = table.count()
    return FieldReport(
        field=table.field.name,
        digests=before.digests,
        recovered=replaced.digests,
        rows_changed=replaced.rows,
        digests_left=after.digests,
        rows_left=after.rows,
        values_tried=meter.values,
        seconds=meter.seconds,
    )


def _record(action: str, url: str, detail: Mapping[str, object]) -> None:
    with open_session(url, LONG_RECORD, "record in the audit") as connection:
        record(connection, action, detail)


class _Meter:
    """Counts values, and the seconds from its creation to the last of them."""

    def __init__(self, on_progress: Callable[[int], None]) -> None:
        self._on_progress = on_progress
        self._started_at = time.monotonic()
        self.values = 0
        self.seconds = 0.0

    def add(self, values: int) -> None:
        self.values += values
        self.seconds = time.monotonic() - self._started_at
        self._on_progress(values)
