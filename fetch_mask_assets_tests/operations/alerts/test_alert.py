"""The texts of alerts, and that a failure is reported once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetch_mask_assets.operations.alerts.alert import (
    Alert,
    FailedCheck,
    FailedRun,
    LoadFreshness,
    Severity,
    check_failed,
    make_test_alert,
    run_failed,
    table_is_stale,
)
from fetch_mask_assets.operations.alerts.state import (
    MAX_PENDING,
    OVERLAP_SECONDS,
    AlertState,
    Observation,
)

CHECK = FailedCheck(
    "user_logins",
    "masked_columns_are_tokens",
    "run-1",
    is_warning=False,
    meaning="Mask or remove them.",
    numbers={"violations": 3},
    at=5.0,
)
NOW = 1_000_000.0


def test_an_alert_of_a_check_has_the_batch_the_impact_and_the_remedy() -> None:
    alert = check_failed([CHECK], {True})

    assert alert.run_id == "run-1"
    assert "masked_columns_are_tokens of user_logins failed in run run-1" in alert.summary
    assert "is committed, whole" in alert.impact
    assert alert.remedy == "Mask or remove them."
    assert alert.numbers == {"violations": 3}


def _failures(count: int) -> list[FailedCheck]:
    """Failures of one check, newest first."""
    return [replace(CHECK, run_id=f"run-{number}", at=number) for number in range(count, 0, -1)]


@pytest.mark.parametrize(
    ("count", "description"),
    [
        (1, "failed in run run-1."),
        (2, "failed in 2 runs: run-2, run-1."),
        (5, "failed in 5 runs: run-5, run-4, run-3, run-2, run-1."),
        (6, "failed in 6 runs: run-6, run-5, run-4, run-3, run-2 and 1 more."),
        (900, "failed in 900 runs: run-900, run-899, run-898, run-897, run-896 and 895 more."),
    ],
)
def test_an_alert_of_many_failures_names_five_runs_and_how_many_more(
    count: int, description: str
) -> None:
    alert = check_failed(_failures(count), {True})

    assert alert.summary.endswith(description)
    assert alert.id == f"check:user_logins:masked_columns_are_tokens:run-{count}"
    assert alert.numbers.get("failures", 1) == count


@pytest.mark.parametrize(
    ("committed", "description"),
    [
        ({True}, "named here are committed, whole"),
        ({False}, "committed whole or not at all"),
        ({True, False}, "committed whole or not at all"),
        ({True, None}, "committed whole or not at all"),
    ],
)
def test_the_impact_of_many_failures_covers_commits_that_are_unknown(
    committed: set[bool | None], description: str
) -> None:
    assert description in check_failed(_failures(3), committed).impact


def test_an_alert_of_warnings_and_an_error_is_an_error() -> None:
    warning = replace(CHECK, is_warning=True)

    assert check_failed([warning, warning], {True}).severity is Severity.WARNING
    assert check_failed([warning, CHECK], {True}).severity is Severity.ERROR


@pytest.mark.parametrize(
    ("takes_messages", "is_committed", "description"),
    [
        (True, False, "No batch of this run is committed"),
        (True, True, "is committed, whole"),
        (True, None, "database is unreachable"),
        (False, False, "takes none from the queue"),
    ],
)
def test_an_alert_of_a_run_states_the_commit_of_its_batch(
    takes_messages: bool,  # noqa: FBT001 (a case)
    is_committed: bool | None,  # noqa: FBT001 (a case)
    description: str,
) -> None:
    run = FailedRun("run-2", "a_job", takes_messages, 5.0)
    alert = run_failed(run, is_committed=is_committed)

    assert alert.id == "run:run-2"
    assert description.replace("takes none", "take none") in alert.impact


@pytest.mark.parametrize(
    ("seconds", "waiting", "expected"),
    [(59, 9, False), (61, 9, True), (61, 0, False), (61, None, True), (59, None, False)],
)
def test_a_table_is_stale_when_nothing_loads_though_messages_wait(
    seconds: float,
    waiting: int | None,
    expected: bool,  # noqa: FBT001 (a case)
) -> None:
    assert LoadFreshness(seconds, 60, waiting).is_stale is expected


def test_an_alert_of_a_stale_table_keeps_its_id_until_something_is_loaded() -> None:
    first = table_is_stale(LoadFreshness(70, 60, 9), since=100.0)
    second = table_is_stale(LoadFreshness(170, 60, None), since=100.0)

    assert first.id == second.id
    assert "9 wait" in first.summary
    assert "the queue does not answer" in second.summary


@pytest.mark.parametrize(
    "alert", [check_failed([CHECK], {None}), make_test_alert(7.0)], ids=["check", "test"]
)
def test_alert_state_survives_serialization(alert: Alert) -> None:
    alert_state = AlertState(1.0, 2.0, {"a": 1.0}, {"b": 2.0}, (("log", alert),))

    assert AlertState.from_json(alert_state.as_json()) == alert_state


def _failed(number: int, at: float = NOW, subject: str | None = "check") -> Observation:
    alert = run_failed(
        FailedRun(f"run-{number}", "a_job", takes_messages=True, at=at), is_committed=None
    )
    return Observation(f"{subject}:{number}", subject, at, alert)


def _passed(number: int, at: float) -> Observation:
    return Observation(f"check:{number}", "check", at, None)


def _observe(
    alert_state: AlertState, *observations: Observation, now: float = NOW
) -> tuple[AlertState, list[str]]:
    """The state after observations of which everything was sent, and the reported runs."""
    after = alert_state.with_observations(observations, ["log"], now)
    reported = [alert.run_id for _, alert in after.pending]
    for each in after.pending:
        after = after.without(each)
    return after, reported


def test_a_failure_that_is_observed_again_is_reported_once() -> None:
    alert_state, first = _observe(AlertState(NOW, NOW), _failed(1, subject=None))
    _, again = _observe(alert_state, _failed(1, subject=None), now=NOW + 30)

    assert (first, again) == (["run-1"], [])


def test_failures_that_an_alert_covers_are_not_reported_again() -> None:
    both = replace(_failed(2, NOW + 1, None), covered_ids=("None:1",))
    alert_state, first = _observe(AlertState(NOW, NOW), both)
    _, again = _observe(alert_state, _failed(1, NOW, None), _failed(3, NOW + 2, None), now=NOW + 30)

    assert (first, again) == (["run-2"], ["run-3"])


def test_a_state_that_lasts_is_reported_once_and_again_after_it_has_passed() -> None:
    alert_state, first = _observe(AlertState(NOW, NOW), _failed(1, NOW), _failed(2, NOW + 1))
    alert_state, still = _observe(alert_state, _failed(3, NOW + 20), now=NOW + 30)
    alert_state, after = _observe(
        alert_state, _passed(4, NOW + 40), _failed(5, NOW + 50), now=NOW + 60
    )
    _, late = _observe(alert_state, _passed(4, NOW + 40), _failed(6, NOW + 70), now=NOW + 90)

    assert (first, still, after, late) == (["run-1"], [], ["run-5"], [])


def test_each_failed_run_is_reported() -> None:
    _, reported = _observe(AlertState(NOW, NOW), _failed(1, subject=None), _failed(2, subject=None))

    assert reported == ["run-1", "run-2"]


def test_an_event_that_becomes_visible_late_is_reported_and_an_old_one_is_not() -> None:
    late = _failed(1, NOW - OVERLAP_SECONDS + 1, subject=None)
    past = _failed(2, NOW - OVERLAP_SECONDS - 1, subject=None)
    _, reported = _observe(AlertState(NOW, NOW), late, past)

    assert reported == ["run-1"]


def test_events_between_distant_observations_are_reported() -> None:
    _, reported = _observe(
        AlertState(NOW, NOW), _failed(1, NOW + 500, subject=None), now=NOW + 90_000
    )

    assert reported == ["run-1"]


def test_an_alert_waits_for_each_destination_by_itself() -> None:
    alert_state = AlertState(NOW, NOW).with_observations([_failed(1)], ["log", "webhook"], NOW)
    left = alert_state.without(alert_state.pending[0])
    without_webhook = left.with_observations([], ["log"], NOW)

    assert [name for name, _ in alert_state.pending] == ["log", "webhook"]
    assert [name for name, _ in left.pending] == ["webhook"]
    assert without_webhook.pending == ()


def test_a_destination_that_is_down_for_long_does_not_fill_the_storage() -> None:
    failures = [_failed(number, NOW + number, None) for number in range(MAX_PENDING + 5)]
    alert_state = AlertState(NOW, NOW).with_observations(failures, ["webhook"], NOW)

    assert len(alert_state.pending) == MAX_PENDING
    assert alert_state.pending[-1][1].run_id == f"run-{MAX_PENDING + 4}"


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=30))
def test_overlapping_observations_report_the_same_as_one(events: list[tuple[int, bool]]) -> None:
    observations = [
        _failed(number, NOW + number) if fails else _passed(100 + number, NOW + number)
        for number, fails in dict(events).items()
    ]
    ordered = sorted(observations, key=lambda each: each.at)
    alert_state, reported = AlertState(NOW, NOW), list[str]()
    for count in range(len(ordered) + 1):
        alert_state, new = _observe(alert_state, *ordered[:count], now=NOW + 20)
        reported += new

    assert reported == _observe(AlertState(NOW, NOW), *ordered, now=NOW + 20)[1]


def test_severities_are_plain_words() -> None:
    assert [each.value for each in Severity] == ["error", "warning", "test"]
