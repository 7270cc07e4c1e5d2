"""How many runs a backlog needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Approximate counts of a queue's messages; on AWS they lag by up to a minute."""

    waiting: int
    in_flight: int
    delayed: int

    @property
    def hidden(self) -> int:
        """How many messages somebody works on, or will show later."""
        return self.in_flight + self.delayed


@dataclass(frozen=True, slots=True)
class RunRequest:
    """How many runs to ask for, and why, in a sentence."""

    runs: int
    because: str


@dataclass(frozen=True, slots=True)
class RunsSoFar:
    """The runs that count: those under way, and how long ago the last began; None if none did."""

    active: int
    seconds_since_last: float | None = None


def runs_to_request(
    depth: QueueDepth,
    *,
    batch_messages: int,
    runs: RunsSoFar,
    max_runs: int,
    look_after_seconds: float,
) -> RunRequest:
    """As many runs as the waiting messages fill, without those already under way.

    A run counts as active from the moment it is asked for, so that a tick which comes
    while runs still start does not ask for them again. Where nothing waits for so long, one run
    looks all the same: a table is as fresh as the last look at the queue.
    """
    counts = (
        f"{depth.in_flight} messages are in flight, {runs.active} of at most {max_runs} runs are"
        " under way."
    )
    if depth.waiting == 0:
        return _look(runs, look_after_seconds, counts)
    needed = min(-(-depth.waiting // batch_messages), max_runs)
    missing = max(0, needed - runs.active)
    if missing == 0:
        return RunRequest(
            0,
            f"{depth.waiting} messages are waiting, and the runs under way take them, {needed}"
            f" of up to {batch_messages} messages: {counts}",
        )
    return RunRequest(
        missing,
        f"{depth.waiting} messages are waiting, for which {needed} runs of up to {batch_messages}"
        f" are needed, so {missing} are asked for: {counts}",
    )


def _look(runs: RunsSoFar, after_seconds: float, counts: str) -> RunRequest:
    ago = runs.seconds_since_last
    if runs.active or ago is None or ago <= after_seconds:
        return RunRequest(0, f"No message is waiting, so no run is needed: {counts}")
    return RunRequest(
        1,
        f"No message is waiting, and the last run began {ago / 60:.0f} minutes ago: one run looks"
        f" whether the queue is dry, so that the table counts as fresh. {counts}",
    )


class NextStep(StrEnum):
    """What to do after a batch, when the queue is to be emptied."""

    RECEIVE = "receive"
    WAIT = "wait"
    STOP = "stop"


def next_step(depth: QueueDepth, *, ran_dry: bool, staying: int = 0) -> NextStep:
    """Whether to take another batch, to wait for messages that are hidden, or to stop.

    Args:
        depth: the queue's counts after the batch.
        ran_dry: whether the batch ended on empty answers. Counts alone would not do: they lag.
        staying: hidden messages that are not worth waiting for.
    """
    if depth.waiting or not ran_dry:
        return NextStep.RECEIVE
    return NextStep.STOP if depth.hidden <= staying else NextStep.WAIT
