"""How often asset checks passed, failed, or were planned and never evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a planned check. A warning is a failure that stops nothing."""

    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    NOT_EVALUATED = "not_evaluated"
    UNDER_WAY = "under_way"


@dataclass(frozen=True, slots=True)
class CheckEvent:
    """One planned check: when it was evaluated, or planned if it was not, and its outcome."""

    at: datetime
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class OutcomeCounts:
    """How often each outcome occurred."""

    passed: int = 0
    warned: int = 0
    failed: int = 0
    not_evaluated: int = 0
    under_way: int = 0

    @property
    def total(self) -> int:
        """How often the check was planned."""
        return sum(self.values)

    @property
    def values(self) -> tuple[int, ...]:
        """The counts in the order of `Outcome`."""
        return (self.passed, self.warned, self.failed, self.not_evaluated, self.under_way)


@dataclass(frozen=True, slots=True)
class CheckTally:
    """One check's outcomes in a period.

    `known_since` is the oldest that its whole history holds, None if it holds nothing. `is_cut`
    says that the period holds more than was read: the counts are those of its newest part.
    """

    asset: str
    name: str
    description: str
    counts: OutcomeCounts
    by_day: tuple[tuple[date, OutcomeCounts], ...]
    newest: CheckEvent | None
    known_since: datetime | None
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class CheckIdentity:
    """A check: its asset, its name, and what it says."""

    asset: str
    name: str
    description: str


def tally(
    check: CheckIdentity,
    events: Iterable[CheckEvent],
    known_since: datetime | None,
    *,
    at_most: int,
) -> CheckTally:
    """Counts the events of a period, newest first; holds counts by day and no event.

    Args:
        check: whose events they are.
        events: those of the period.
        known_since: the oldest event of the whole history.
        at_most: how many events are counted; of more, only that there are more is said.
    """
    newest: CheckEvent | None = None
    by_day: dict[date, Counter[Outcome]] = {}
    is_cut = False
    for number, event in enumerate(events, start=1):
        if number > at_most:
            is_cut = True
            break
        newest = event if newest is None or event.at > newest.at else newest
        by_day.setdefault(event.at.astimezone(UTC).date(), Counter())[event.outcome] += 1
    days = tuple((day, _counts(by_day[day])) for day in sorted(by_day))
    total = added(counts for _, counts in days)
    return CheckTally(
        check.asset, check.name, check.description, total, days, newest, known_since, is_cut
    )


def added(counts: Iterable[OutcomeCounts]) -> OutcomeCounts:
    """Several counts together."""
    columns = zip(*(each.values for each in counts), strict=True)
    return OutcomeCounts(*map(sum, columns))


def days_of(tallies: Iterable[CheckTally]) -> tuple[tuple[date, OutcomeCounts], ...]:
    """The outcomes of all checks together, by day."""
    days: dict[date, list[OutcomeCounts]] = {}
    for each in tallies:
        for day, counts in each.by_day:
            days.setdefault(day, []).append(counts)
    return tuple((day, added(days[day])) for day in sorted(days))


def _counts(counter: Counter[Outcome]) -> OutcomeCounts:
    return OutcomeCounts(**{outcome.value: count for outcome, count in counter.items()})
