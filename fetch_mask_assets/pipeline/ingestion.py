"""Ingestion: batch after batch until the queue is dry."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from fetch_mask_assets.pipeline.batch.balance import Balance, total
from fetch_mask_assets.pipeline.queue.backlog import QueueDepth

MAX_EMPTY_BATCHES = 3
"""After so many empty batches in a row the queue's counts are not believed."""

_POLL_SECONDS = 1


@dataclass(frozen=True, slots=True)
class BatchRun:
    """One run of the pipeline.

    `balance` is None if nothing was committed, `failure` is None if the run succeeded. `messages`
    counts those that were received and not returned, `returned` those that were returned to the
    queue; `ran_dry` is whether the run received until the queue was dry.
    """

    balance: Balance | None = None
    failure: str | None = None
    ran_dry: bool = False
    messages: int = 0
    returned: int = 0


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """The conditions that end an ingestion.

    `max_wait_seconds` is the longest wait for messages in flight; 0 for none. `awaits_returned` is
    whether returned messages are among them: from a dead-letter queue they never move on.
    """

    max_batches: int | None = None
    max_wait_seconds: int = 0
    awaits_returned: bool = True


class IngestEnd(StrEnum):
    """Why an ingestion ended."""

    DONE = "done"
    FAILED = "failed"
    IN_FLIGHT = "in flight"
    NOTHING_RECEIVED = "nothing received"


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The balance of each committed batch, why the ingestion ended, and why a run failed."""

    balances: tuple[Balance, ...] = ()
    end: IngestEnd = IngestEnd.DONE
    failure: str | None = None

    @property
    def total(self) -> Balance:
        """The balance of all batches together."""
        return total(self.balances)

    def as_counts(self) -> dict[str, int]:
        """The total by name, and the number of batches."""
        return self.total.as_counts() | {"batches": len(self.balances)}


def ingest(
    run_batch: Callable[[], BatchRun],
    read_depth: Callable[[], QueueDepth],
    on_progress: Callable[[str], object],
    options: IngestOptions,
) -> IngestResult:
    """Runs batches until the queue is dry, a run fails, or `max_batches` were run.

    Args:
        run_batch: receives and commits one batch.
        read_depth: reads the queue's counts.
        on_progress: called with a line of text.
        options: when to end.
    """
    queue = _Queue(read_depth, on_progress, options)
    result, empty = IngestResult(), 0
    for number in range(1, (options.max_batches or sys.maxsize) + 1):
        on_progress(f"Batch {number}: {result.total.received} messages so far")
        run = run_batch()
        if run.balance:
            result = replace(result, balances=(*result.balances, run.balance))
        if run.failure:
            return replace(result, end=IngestEnd.FAILED, failure=run.failure)
        empty = 0 if run.messages else empty + 1
        if end := queue.end_after(run, empty):
            return replace(result, end=end)
    return result


class NextStep(StrEnum):
    """The step after a batch."""

    RECEIVE = "receive"
    WAIT = "wait"
    STOP = "stop"


def next_step(depth: QueueDepth, *, ran_dry: bool, unavailable: int = 0) -> NextStep:
    """The next step: take another batch, wait for hidden messages, or stop.

    Args:
        depth: the queue's counts after the batch.
        ran_dry: whether the batch ended on empty answers. Counts alone would not do: they lag.
        unavailable: hidden messages that are not worth waiting for.
    """
    if depth.waiting or not ran_dry:
        return NextStep.RECEIVE
    return NextStep.STOP if depth.hidden <= unavailable else NextStep.WAIT


@dataclass(frozen=True, slots=True)
class _Queue:
    read_depth: Callable[[], QueueDepth]
    on_progress: Callable[[str], object]
    options: IngestOptions

    def end_after(self, run: BatchRun, empty: int) -> IngestEnd | None:
        """The end after this run, the last of `empty` empty ones; None to go on."""
        unavailable = 0 if self.options.awaits_returned else run.returned
        if unavailable and not run.messages:
            return IngestEnd.DONE
        step = next_step(self.read_depth(), ran_dry=run.ran_dry, unavailable=unavailable)
        if step is NextStep.RECEIVE:
            # Counts lag, and a queue at its in-flight limit hands nothing out: do not go on for
            # hours.
            return IngestEnd.NOTHING_RECEIVED if empty >= MAX_EMPTY_BATCHES else None
        if step is NextStep.WAIT and self.options.max_wait_seconds:
            return self._wait(unavailable)
        return IngestEnd.DONE

    def _wait(self, unavailable: int) -> IngestEnd | None:
        """Waits until hidden messages are visible again or gone."""
        attempts = Retrying(
            retry=retry_if_result(lambda step: step is NextStep.WAIT),
            stop=stop_after_delay(self.options.max_wait_seconds),
            wait=wait_fixed(_POLL_SECONDS),
        )
        try:
            step = attempts(self._look, unavailable)
        except RetryError:
            return IngestEnd.IN_FLIGHT
        return None if step is NextStep.RECEIVE else IngestEnd.DONE

    def _look(self, unavailable: int) -> NextStep:
        depth = self.read_depth()
        self.on_progress(f"{depth.hidden} messages are in flight: waiting for them")
        return next_step(depth, ran_dry=True, unavailable=unavailable)
