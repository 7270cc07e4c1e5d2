"""The outcomes of asset checks, by check and by day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from fetch_mask_assets.operations.report.part import Facts


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
class CheckIdentity:
    """A check: its asset, its name and its meaning."""

    asset: str
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class CheckTally:
    """One check's outcomes in a period, by day (UTC).

    `known_since` is the oldest event of its whole history, None if there is none. If `is_cut`, the
    period holds more events than were read: the counts are those of its newest part.
    """

    check: CheckIdentity
    by_day: dict[date, Counter[Outcome]]
    newest: CheckEvent | None
    known_since: datetime | None
    is_cut: bool = False

    @property
    def counts(self) -> Counter[Outcome]:
        """The outcomes of the whole period."""
        return _total(self.by_day.values())


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
    by_day: dict[date, Counter[Outcome]] = {}
    for number, event in enumerate(events, start=1):
        if number > max_events:
            return CheckTally(check, by_day, newest, known_since, is_cut=True)
        newest = event if newest is None or event.at > newest.at else newest
        by_day.setdefault(event.at.astimezone(UTC).date(), Counter())[event.outcome] += 1
    return CheckTally(check, by_day, newest, known_since)


def check_facts(tallies: Sequence[CheckTally]) -> Facts:
    """The facts of the part: all outcomes, each check with its meaning, and each day."""
    known = [each.known_since for each in tallies if each.known_since]
    days = sorted({day for each in tallies for day in each.by_day})
    return {
        "outcomes": _row(_total(each.counts for each in tallies)),
        "history": {"known_since": min(known, default=None)},
        "checks": [_check_row(each) for each in tallies],
        "days": [
            {"day": day} | _row(_total(each.by_day.get(day, Counter()) for each in tallies))
            for day in days
        ],
        "meanings": [
            {
                "asset": each.check.asset,
                "name": each.check.name,
                "meaning": each.check.description,
            }
            for each in tallies
        ],
    }


def _check_row(tally: CheckTally) -> dict[str, Any]:
    return {
        "asset": tally.check.asset,
        "name": tally.check.name,
        **_row(tally.counts),
        "last_outcome": tally.newest and tally.newest.outcome.value,
        "last_at": tally.newest and tally.newest.at,
        "known_since": tally.known_since,
        "is_cut": tally.is_cut,
    }


def _row(counts: Counter[Outcome]) -> dict[str, Any]:
    return {outcome.value: counts[outcome] for outcome in Outcome}


def _total(counts: Iterable[Counter[Outcome]]) -> Counter[Outcome]:
    return sum(counts, Counter[Outcome]())
