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


def runs_to_request(
    depth: QueueDepth, *, batch_messages: int, active_runs: int, max_runs: int
) -> RunRequest:
    """As many runs as the waiting messages fill, without those already under way.

    A run counts as active from the moment it is asked for, so that a tick which comes
    while runs still start does not ask for them again.
    """
    if depth.waiting == 0:
        return RunRequest(0, f"No message is waiting; {depth.in_flight} are in flight.")
    needed = min(-(-depth.waiting // batch_messages), max_runs)
    missing = max(0, needed - active_runs)
    if missing == 0:
        return RunRequest(
            0,
            f"{depth.waiting} messages are waiting, and the {active_runs} runs under way"
            f" take them: {needed} are needed, {max_runs} are allowed.",
        )
    return RunRequest(
        missing,
        f"{depth.waiting} messages are waiting: {needed} runs of {batch_messages} are needed,"
        f" {active_runs} are under way, {max_runs} are allowed.",
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
