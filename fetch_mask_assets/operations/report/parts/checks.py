"""The outcomes of asset checks, by check and by day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import ClassVar

from fetch_mask_assets.operations.report.part import (
    Block,
    Chart,
    Judgement,
    Part,
    Table,
    broken,
    by_heading,
    heading,
    notice,
    total,
    unreadable,
)


class Outcome(StrEnum):
    """The outcome of a planned check. A warning is a failure that stops nothing."""

    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    NOT_EVALUATED = "not_evaluated"
    UNDER_WAY = "under_way"


@dataclass(frozen=True, slots=True)
class CheckEvent:
    """One planned check: the time of its evaluation, or else of its planning, and its outcome."""

    at: datetime
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class OutcomeCounts:
    """The number of times of each outcome."""

    passed: int = 0
    warned: int = 0
    failed: int = 0
    not_evaluated: int = 0
    under_way: int = 0


@dataclass(frozen=True, slots=True)
class DayOutcomes(OutcomeCounts):
    """The outcomes of a day, UTC."""

    day: date = date.min


@dataclass(frozen=True, slots=True)
class CheckIdentity:
    """A check: its asset, its name and its meaning."""

    asset: str
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class CheckTally(CheckIdentity):
    """One check's outcomes in a period.

    `known_since` is the oldest event of its whole history, None if there is none. If `is_cut`, the
    period holds more events than were read: the counts are those of its newest part.
    """

    counts: OutcomeCounts
    by_day: tuple[DayOutcomes, ...]
    newest: CheckEvent | None
    known_since: datetime | None
    is_cut: bool = False


def tally(
    check: CheckIdentity,
    events: Iterable[CheckEvent],
    known_since: datetime | None,
    *,
    max_events: int,
) -> CheckTally:
    """Counts the events of a period by day; keeps no event but the newest.

    Args:
        check: the check of the events.
        events: those of the period.
        known_since: the oldest event of the whole history.
        max_events: the number of events that are counted; the tally is cut if there are more.
    """
    newest: CheckEvent | None = None
    by_day: dict[date, Counter[str]] = {}
    is_cut = False
    for number, event in enumerate(events, start=1):
        if number > max_events:
            is_cut = True
            break
        newest = event if newest is None or event.at > newest.at else newest
        by_day.setdefault(event.at.astimezone(UTC).date(), Counter())[event.outcome.value] += 1
    days = tuple(DayOutcomes(**by_day[day], day=day) for day in sorted(by_day))
    counts = total(OutcomeCounts, days)
    return CheckTally(
        check.asset, check.name, check.description, counts, days, newest, known_since, is_cut
    )


@dataclass(frozen=True, slots=True)
class Checks(Part):
    """The asset checks, with their outcomes in the period."""

    name: ClassVar[str] = "checks"
    title: ClassVar[str] = "Checks"
    promise: ClassVar[str] = "No check failed, and the last run of each check was evaluated."
    about: ClassVar[str] = (
        "Each batch is checked before it is written, and counted by the database afterwards. A"
        " warning stops nothing. Not evaluated: the check was planned and never ran, because its"
        " run failed or was stopped; it is not counted as passed. The check on this report is left"
        " out."
    )

    checks: tuple[CheckTally, ...]
    known_since: datetime | None

    def figure(self) -> str:
        """Return the numbers that matter most."""
        counts = total(OutcomeCounts, [each.counts for each in self.checks])
        return f"{counts.passed:,} passed, {counts.failed:,} failed"

    def judgements(self) -> Iterator[Judgement]:
        """Return the conditions of findings."""
        for check in self.checks:
            name, counts = f"{check.asset}: {check.name}", check.counts
            yield broken(counts.failed, f"{name} failed {counts.failed} times.")
            yield notice(counts.warned, f"{name} warned {counts.warned} times.")
            judge = notice if _is_evaluated(check.newest) else broken
            yield judge(
                counts.not_evaluated,
                f"{name} was planned and not evaluated {counts.not_evaluated} times: the runs"
                " failed or were stopped before it.",
            )
            yield unreadable(
                check.is_cut,
                f"{name}: the period holds more than was counted; shorten it.",
            )
            yield notice(
                not any(astuple(counts)),
                f"{name} was never planned in the period.",
            )

    def by_day(self) -> list[DayOutcomes]:
        """The outcomes of all checks together, by day."""
        given = [each for check in self.checks for each in check.by_day]
        return [
            DayOutcomes(**asdict(total(OutcomeCounts, [e for e in given if e.day == day])), day=day)
            for day in sorted({each.day for each in given})
        ]

    def details(self) -> Iterator[Block]:
        """Return the tables and the chart behind the figure."""
        yield (
            f"Dagster's check history begins at {self.known_since:%Y-%m-%d %H:%M} UTC."
            if self.known_since
            else "Dagster's check history is empty."
        )
        names = [each.name for each in fields(OutcomeCounts)]
        days = self.by_day()
        series = [heading(name).lower() for name in names]
        yield Chart("Planned checks by day", series, [(e.day, astuple(e)[:-1]) for e in days])
        yield Table("Each check in the period", [_cells(each) for each in self.checks])
        yield Table("Planned checks by day", [
            {"Day": each.day, **by_heading(each)} for each in days
        ])  # fmt: skip
        yield Table("The meaning of each check", [
            {"Check": each.name, "Meaning": each.description} for each in self.checks
        ])  # fmt: skip


def _is_evaluated(event: CheckEvent | None) -> bool:
    return event is not None and event.outcome is not Outcome.NOT_EVALUATED


def _cells(check: CheckTally) -> dict[str, object]:
    newest = check.newest
    return {
        "Check": f"{check.asset}: {check.name}",
        **by_heading(check.counts),
        "Last": f"{heading(newest.outcome)}, {newest.at:%Y-%m-%d}" if newest else None,
        "Known since": check.known_since and check.known_since.date(),
    }
