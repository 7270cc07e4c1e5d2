"""How outcomes of checks are counted."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from fetch_mask_assets.operations.report.check_history import (
    CheckEvent,
    CheckIdentity,
    Outcome,
    OutcomeCounts,
    days_of,
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

    counted = tally(CHECK, events, NOON, at_most=100)

    assert counted.counts == OutcomeCounts(1, 2, 3, 4, 5)
    assert counted.counts.total == 15


def test_what_was_not_evaluated_is_never_counted_as_passed() -> None:
    counted = tally(CHECK, [event(Outcome.NOT_EVALUATED)], NOON, at_most=100)

    assert (counted.counts.passed, counted.counts.not_evaluated) == (0, 1)


def test_days_are_those_of_utc() -> None:
    events = [event(Outcome.PASSED, 11.9), event(Outcome.FAILED, 12.1)]

    counted = tally(CHECK, events, NOON, at_most=100)

    assert counted.by_day == (
        (date(2026, 5, 4), OutcomeCounts(passed=1)),
        (date(2026, 5, 5), OutcomeCounts(failed=1)),
    )


def test_the_newest_is_the_newest_whatever_the_order() -> None:
    events = [event(Outcome.PASSED, 1), event(Outcome.FAILED, 2), event(Outcome.WARNED, -1)]

    assert tally(CHECK, events, NOON, at_most=100).newest == events[1]


def test_more_events_than_are_counted_are_said_to_be_more() -> None:
    events = [event(Outcome.PASSED)] * 4

    assert tally(CHECK, events, NOON, at_most=3).counts.passed == 3
    assert tally(CHECK, events, NOON, at_most=3).is_cut
    assert not tally(CHECK, events, NOON, at_most=4).is_cut


def test_a_check_without_history_has_counts_of_nothing() -> None:
    counted = tally(CHECK, [], None, at_most=3)

    assert counted.counts == OutcomeCounts()
    assert (counted.newest, counted.known_since) == (None, None)


def test_days_of_several_checks_are_added() -> None:
    one = tally(CHECK, [event(Outcome.PASSED)], NOON, at_most=9)
    other = tally(CHECK, [event(Outcome.FAILED), event(Outcome.PASSED, 24)], NOON, at_most=9)

    assert days_of([one, other]) == (
        (date(2026, 5, 4), OutcomeCounts(passed=1, failed=1)),
        (date(2026, 5, 5), OutcomeCounts(passed=1)),
    )
