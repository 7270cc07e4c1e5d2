"""As many runs as the backlog needs, and no more than are allowed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.pipeline.queue.backlog import (
    QueueDepth,
    RunsSoFar,
    runs_to_request,
)
from fetch_mask_assets.settings import Tuning


def _depth(waiting: int = 0, in_flight: int = 0, delayed: int = 0) -> QueueDepth:
    return QueueDepth(waiting=waiting, in_flight=in_flight, delayed=delayed)


@pytest.mark.parametrize(
    ("waiting", "batch_messages", "active_runs", "max_runs", "expected"),
    [
        (0, 100, 0, 4, 0),
        (0, 100, 4, 4, 0),
        (1, 100, 0, 4, 1),
        (99, 100, 0, 4, 1),
        (100, 100, 0, 4, 1),
        (101, 100, 0, 4, 2),
        (400, 100, 0, 4, 4),
        (401, 100, 0, 4, 4),
        (10_000_000, 100, 0, 4, 4),
        (1, 100, 1, 4, 0),
        (101, 100, 1, 4, 1),
        (400, 100, 3, 4, 1),
        (10_000, 100, 4, 4, 0),
        (10_000, 100, 7, 4, 0),
        (10_000, 1, 0, 1, 1),
        (3, 1, 0, 4, 3),
    ],
)
def test_the_requested_runs_are_those_that_the_backlog_lacks(
    waiting: int, batch_messages: int, active_runs: int, max_runs: int, expected: int
) -> None:
    tuning = Tuning(batch_messages=batch_messages, max_runs=max_runs, freshness_seconds=3_600)

    actual = runs_to_request(
        _depth(waiting, in_flight=50), RunsSoFar(active_runs, 60.0), tuning
    ).runs

    assert expected == actual


@settings(max_examples=150, deadline=None)
@given(
    waiting=st.integers(0, 10**7),
    hidden=st.integers(0, 120_000),
    batch_messages=st.integers(1, 100_000),
    active_runs=st.integers(0, 50),
    max_runs=st.integers(1, 50),
)
def test_no_more_runs_are_requested_than_are_free_or_than_have_messages_to_take(
    waiting: int, hidden: int, batch_messages: int, active_runs: int, max_runs: int
) -> None:
    tuning = Tuning(batch_messages=batch_messages, max_runs=max_runs, freshness_seconds=3_600)

    request = runs_to_request(_depth(waiting, hidden, hidden), RunsSoFar(active_runs, 60.0), tuning)

    assert 0 <= request.runs <= max(0, max_runs - active_runs)
    assert request.runs <= waiting
    assert request.reason.endswith(".")
    if waiting and not active_runs:
        assert request.runs >= 1


COUNTS = "{} messages are in flight, {} of at most 4 runs are active."


@pytest.mark.parametrize(
    ("depth", "active_runs", "since_last", "expected"),
    [
        (_depth(0, 7), 0, None, f"No message is waiting, so no run is needed: {COUNTS}"),
        (_depth(0, 7), 0, 1_800, f"No message is waiting, so no run is needed: {COUNTS}"),
        (_depth(0, 7), 2, 9_999, f"No message is waiting, so no run is needed: {COUNTS}"),
        (
            _depth(0, 7),
            0,
            1_860,
            (
                "No message is waiting, and the last run was requested 31 minutes ago: one"
                f" run receives once, so that the table counts as fresh. {COUNTS}"
            ),
        ),
        (
            _depth(250, 7),
            1,
            None,
            (
                "250 messages are waiting, for which 3 runs of up to 100 are needed, so 2 are"
                f" requested: {COUNTS}"
            ),
        ),
        (
            _depth(900, 7),
            4,
            9_999,
            (
                "900 messages are waiting, and the active runs take them, 4 of up to 100"
                f" messages: {COUNTS}"
            ),
        ),
    ],
)
def test_the_reason_is_one_sentence_with_the_numbers(
    depth: QueueDepth, active_runs: int, since_last: float | None, expected: str
) -> None:
    tuning = Tuning(batch_messages=100, max_runs=4, freshness_seconds=3_600)

    actual = runs_to_request(depth, RunsSoFar(active_runs, since_last), tuning)

    assert actual.reason == expected.format(7, active_runs)
    requested = "are requested" in actual.reason or "one run receives" in actual.reason
    assert bool(actual.runs) == requested
