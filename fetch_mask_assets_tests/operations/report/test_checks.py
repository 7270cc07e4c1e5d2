"""The counting of the outcomes of checks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from fetch_mask_assets.operations.report.checks import (
    CheckEvent,
    CheckIdentity,
    Outcome,
    check_facts,
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

    assert [counted.counts[outcome] for outcome in Outcome] == [1, 2, 3, 4, 5]
    assert counted.counts.total() == 15


def test_a_check_that_was_not_evaluated_is_never_counted_as_passed() -> None:
    counted = tally(CHECK, [event(Outcome.NOT_EVALUATED)], NOON, max_events=100)

    assert counted.counts == {Outcome.NOT_EVALUATED: 1}


def test_days_are_those_of_utc() -> None:
    events = [event(Outcome.PASSED, 11.9), event(Outcome.FAILED, 12.1)]

    counted = tally(CHECK, events, NOON, max_events=100)

    assert counted.by_day == {
        date(2026, 5, 4): {Outcome.PASSED: 1},
        date(2026, 5, 5): {Outcome.FAILED: 1},
    }


def test_the_newest_is_the_newest_whatever_the_order() -> None:
    events = [event(Outcome.PASSED, 1), event(Outcome.FAILED, 2), event(Outcome.WARNED, -1)]

    assert tally(CHECK, events, NOON, max_events=100).newest == events[1]


def test_a_tally_of_too_many_events_is_cut() -> None:
    events = [event(Outcome.PASSED)] * 4

    assert tally(CHECK, events, NOON, max_events=3).counts[Outcome.PASSED] == 3
    assert tally(CHECK, events, NOON, max_events=3).is_cut
    assert not tally(CHECK, events, NOON, max_events=4).is_cut


def test_a_check_without_history_has_counts_of_nothing() -> None:
    counted = tally(CHECK, [], None, max_events=3)

    assert counted.counts.total() == 0
    assert (counted.newest, counted.known_since) == (None, None)


def test_days_of_several_checks_are_added() -> None:
    one = tally(CHECK, [event(Outcome.PASSED)], NOON, max_events=9)
    other = tally(CHECK, [event(Outcome.FAILED), event(Outcome.PASSED, 24)], NOON, max_events=9)

    nothing = {outcome.value: 0 for outcome in Outcome}
    assert check_facts([one, other])["days"] == [
        {"day": date(2026, 5, 4), **nothing, "passed": 1, "failed": 1},
        {"day": date(2026, 5, 5), **nothing, "passed": 1},
    ]


def test_the_facts_of_a_check_have_its_outcomes_and_its_newest_event() -> None:
    counted = tally(CHECK, [event(Outcome.FAILED, 1), event(Outcome.PASSED)], NOON, max_events=9)

    facts = check_facts([counted])

    [row] = facts["checks"]
    assert (row["passed"], row["failed"], row["warned"]) == (1, 1, 0)
    assert (row["last_outcome"], row["last_at"]) == ("failed", NOON + timedelta(hours=1))
    assert facts["history"] == {"known_since": NOON}
    assert facts["outcomes"]["failed"] == 1
