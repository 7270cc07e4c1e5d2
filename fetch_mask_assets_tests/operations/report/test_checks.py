"""The counting of the outcomes of checks."""

from __future__ import annotations

from dataclasses import astuple
from datetime import UTC, date, datetime, timedelta

from fetch_mask_assets.operations.report.parts.checks import (
    CheckEvent,
    CheckIdentity,
    Checks,
    DayOutcomes,
    Outcome,
    OutcomeCounts,
    tally,
)

CHECK = CheckIdentity("user_logins", "balance_holds", "It adds up.")
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def event(outcome: Outcome, hours: float = 0) -> CheckEvent:
    return CheckEvent(NOON + timedelta(hours=hours), outcome)


def test_each_outcome_is_counted_as_itself() -> None:
    events = [
        event(outcome) for outcome in Outcome for _ in range(list(Outcome).index(outcome) + 1)
    ]

    counted = tally(CHECK, events, NOON, max_events=100)

    assert counted.counts == OutcomeCounts(1, 2, 3, 4, 5)
    assert sum(astuple(counted.counts)) == 15


def test_a_check_that_was_not_evaluated_is_never_counted_as_passed() -> None:
    counted = tally(CHECK, [event(Outcome.NOT_EVALUATED)], NOON, max_events=100)

    assert (counted.counts.passed, counted.counts.not_evaluated) == (0, 1)


def test_days_are_those_of_utc() -> None:
    events = [event(Outcome.PASSED, 11.9), event(Outcome.FAILED, 12.1)]

    counted = tally(CHECK, events, NOON, max_events=100)

    assert counted.by_day == (
        DayOutcomes(passed=1, day=date(2026, 5, 4)),
        DayOutcomes(failed=1, day=date(2026, 5, 5)),
    )


def test_the_newest_is_the_newest_whatever_the_order() -> None:
    events = [event(Outcome.PASSED, 1), event(Outcome.FAILED, 2), event(Outcome.WARNED, -1)]

    assert tally(CHECK, events, NOON, max_events=100).newest == events[1]


def test_a_tally_of_too_many_events_is_cut() -> None:
    events = [event(Outcome.PASSED)] * 4

    assert tally(CHECK, events, NOON, max_events=3).counts.passed == 3
    assert tally(CHECK, events, NOON, max_events=3).is_cut
    assert not tally(CHECK, events, NOON, max_events=4).is_cut


def test_a_check_without_history_has_counts_of_nothing() -> None:
    counted = tally(CHECK, [], None, max_events=3)

    assert counted.counts == OutcomeCounts()
    assert (counted.newest, counted.known_since) == (None, None)


def test_days_of_several_checks_are_added() -> None:
    one = tally(CHECK, [event(Outcome.PASSED)], NOON, max_events=9)
    other = tally(CHECK, [event(Outcome.FAILED), event(Outcome.PASSED, 24)], NOON, max_events=9)

    assert Checks((one, other), NOON).by_day() == [
        DayOutcomes(passed=1, failed=1, day=date(2026, 5, 4)),
        DayOutcomes(passed=1, day=date(2026, 5, 5)),
    ]
