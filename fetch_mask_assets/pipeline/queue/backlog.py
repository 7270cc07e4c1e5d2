"""The backlog of the queue, and the runs that it needs."""

from __future__ import annotations

from dataclasses import dataclass

from fetch_mask_assets.settings import Tuning


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Approximate counts of a queue's messages; on AWS they lag by up to a minute."""

    waiting: int
    in_flight: int
    delayed: int

    @property
    def hidden(self) -> int:
        """Messages that no receive returns now: in flight or delayed."""
        return self.in_flight + self.delayed


@dataclass(frozen=True, slots=True)
class RunsNeeded:
    """The number of runs to request, and the reason as a sentence."""

    runs: int
    reason: str


@dataclass(frozen=True, slots=True)
class RunsSoFar:
    """The active runs, and the seconds since the last run was requested; None if none was."""

    active: int
    seconds_since_last: float | None = None


def runs_to_request(depth: QueueDepth, runs: RunsSoFar, tuning: Tuning) -> RunsNeeded:
    """As many runs as the waiting messages fill, less the active ones.

    A run is active from its request on, so that a tick does not request runs again that are still
    starting. When nothing was waiting for half of `freshness_seconds`, one run is requested all the
    same: the table is as fresh as the last look at the queue.
    """
    counts = (
        f"{depth.in_flight} messages are in flight, {runs.active} of at most {tuning.max_runs} runs"
        " are active."
    )
    if depth.waiting == 0:
        return _freshness_run(runs, tuning.freshness_seconds / 2, counts)
    batch_messages = tuning.batch_messages
    needed = min(-(-depth.waiting // batch_messages), tuning.max_runs)
    missing = max(0, needed - runs.active)
    if missing == 0:
        return RunsNeeded(
            0,
            f"{depth.waiting} messages are waiting, and the active runs take them, {needed}"
            f" of up to {batch_messages} messages: {counts}",
        )
    return RunsNeeded(
        missing,
        f"{depth.waiting} messages are waiting, for which {needed} runs of up to {batch_messages}"
        f" are needed, so {missing} are requested: {counts}",
    )


def _freshness_run(runs: RunsSoFar, after_seconds: float, counts: str) -> RunsNeeded:
    ago = runs.seconds_since_last
    if runs.active or ago is None or ago <= after_seconds:
        return RunsNeeded(0, f"No message is waiting, so no run is needed: {counts}")
    return RunsNeeded(
        1,
        f"No message is waiting, and the last run was requested {ago / 60:.0f} minutes ago: one"
        f" run receives once, so that the table counts as fresh. {counts}",
    )
