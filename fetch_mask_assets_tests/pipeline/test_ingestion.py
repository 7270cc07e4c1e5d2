"""Batches are run until the queue is dry, a run fails or a limit is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from fetch_mask_assets.pipeline.batch.balance import Balance
from fetch_mask_assets.pipeline.ingestion import (
    MAX_EMPTY_BATCHES,
    BatchRun,
    IngestEnd,
    IngestOptions,
    IngestResult,
    NextStep,
    ingest,
    next_step,
)
from fetch_mask_assets.pipeline.queue.backlog import QueueDepth

FULL = BatchRun(Balance(10, 9, 1, 0), messages=10)
LAST = BatchRun(Balance(3, 3, 0, 0), ran_dry=True, messages=3)
EMPTY = BatchRun(ran_dry=True)


def _depth(waiting: int = 0, in_flight: int = 0, delayed: int = 0) -> QueueDepth:
    return QueueDepth(waiting=waiting, in_flight=in_flight, delayed=delayed)


def _ingest(
    runs: Iterable[BatchRun],
    depths: Iterable[QueueDepth],
    on_progress: Callable[[str], object] = str,
    **options: int | bool,
) -> IngestResult:
    """Every run and every depth must be used."""
    runs, depths = iter(runs), iter(depths)
    result = ingest(
        runs.__next__,
        depths.__next__,
        on_progress,
        IngestOptions(**options),  # type: ignore[arg-type]
    )
    assert (list(runs), list(depths)) == ([], [])
    return result


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls at once."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)


def test_batches_are_run_until_the_queue_is_dry() -> None:
    lines: list[str] = []

    result = _ingest([FULL, FULL, LAST], [_depth(13), _depth(3), _depth()], lines.append)

    assert result == IngestResult((FULL.balance, FULL.balance, LAST.balance))  # type: ignore[arg-type]
    expected = {"received": 23, "loaded": 21, "quarantined": 2, "already_known": 0, "batches": 3}
    assert result.as_counts() == expected
    assert lines[-1] == "Batch 3: 20 messages so far"


def test_a_failed_run_ends_it_and_what_was_committed_counts() -> None:
    failed = BatchRun(Balance(2, 2, 0, 0), "Run 42 failed.")

    result = _ingest([FULL, failed], [_depth(2)])

    assert (result.end, result.failure) == (IngestEnd.FAILED, "Run 42 failed.")
    assert result.total.received == 12


def test_no_more_batches_are_run_than_allowed() -> None:
    result = _ingest([FULL, FULL], [_depth(90), _depth(80)], max_batches=2)

    assert (result.end, len(result.balances)) == (IngestEnd.DONE, 2)


def test_counts_that_promise_messages_are_believed_for_a_few_empty_batches() -> None:
    runs, depths = [EMPTY] * MAX_EMPTY_BATCHES, [_depth(1)] * MAX_EMPTY_BATCHES

    assert _ingest(runs, depths).end is IngestEnd.NOTHING_RECEIVED
    assert _ingest([EMPTY, LAST, *runs], [*depths, *depths[:2]]).end is IngestEnd.NOTHING_RECEIVED


@pytest.mark.usefixtures("no_sleep")
def test_messages_in_flight_are_waited_for_until_they_are_visible() -> None:
    depths = [_depth(0, 3), _depth(0, 3), _depth(3), _depth()]

    result = _ingest([LAST, LAST], depths, max_wait_seconds=60)

    assert (result.end, len(result.balances)) == (IngestEnd.DONE, 2)


@pytest.mark.usefixtures("no_sleep")
def test_messages_in_flight_are_waited_for_until_they_are_gone() -> None:
    assert _ingest([LAST], [_depth(0, 3), _depth()], max_wait_seconds=60).end is IngestEnd.DONE


def test_messages_that_stay_in_flight_end_it() -> None:
    result = ingest(
        lambda: LAST, lambda: _depth(0, 1), lambda _line: None, IngestOptions(max_wait_seconds=1)
    )

    assert result.end is IngestEnd.IN_FLIGHT


def test_messages_in_flight_are_not_waited_for_without_a_time_for_it() -> None:
    assert _ingest([LAST], [_depth(0, 3)]).end is IngestEnd.DONE


def test_returned_messages_end_it_when_they_are_not_waited_for() -> None:
    poison = BatchRun(ran_dry=False, returned=2)

    assert _ingest([poison], [], awaits_returned=False).end is IngestEnd.DONE


@pytest.mark.parametrize(
    ("depth", "ran_dry", "expected"),
    [
        (_depth(), True, NextStep.STOP),
        (_depth(), False, NextStep.RECEIVE),
        (_depth(waiting=1), True, NextStep.RECEIVE),
        (_depth(waiting=1), False, NextStep.RECEIVE),
        (_depth(in_flight=1), True, NextStep.WAIT),
        (_depth(in_flight=1), False, NextStep.RECEIVE),
        (_depth(delayed=1), True, NextStep.WAIT),
        (_depth(1, 1, 1), True, NextStep.RECEIVE),
    ],
)
def test_a_queue_that_is_emptied_is_left_only_when_it_is_dry(
    depth: QueueDepth, expected: NextStep, *, ran_dry: bool
) -> None:
    actual = next_step(depth, ran_dry=ran_dry)

    assert expected == actual


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (_depth(in_flight=2), NextStep.STOP),
        (_depth(in_flight=1, delayed=1), NextStep.STOP),
        (_depth(in_flight=2, delayed=1), NextStep.WAIT),
        (_depth(waiting=1), NextStep.RECEIVE),
    ],
)
def test_messages_that_will_not_be_taken_are_not_waited_for(
    depth: QueueDepth, expected: NextStep
) -> None:
    actual = next_step(depth, ran_dry=True, unavailable=2)

    assert expected == actual
