"""The goals: ratios of the product to a baseline of the same run, or to a stated figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import stages
from benchmarks.figures import Round, Spread, StageResult, stage_named
from benchmarks.queue.messages import body
from benchmarks.tables import number, ranged, table

_KILOBYTE = 1_000


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure of one stage that must not exceed a limit, and its baseline."""

    name: str
    compared_with: str
    stage: str
    measured: Callable[[StageResult], Spread]
    limit: float


def _cpu(each: Round) -> float:
    return each.cpu_seconds


def _wall(each: Round) -> float:
    return each.wall_seconds


def _ratio(quantity: Callable[[Round], float]) -> Callable[[StageResult], Spread]:
    return lambda stage: stage.ratio(quantity)


def _own(quantity: Callable[[Round], float]) -> Callable[[StageResult], Spread]:
    return lambda stage: stage.contenders[0].spread(quantity)


def _bytes_beyond_bodies(stage: StageResult) -> Spread:
    """Kilobytes a message by which a large batch exceeds a small one, without the bodies."""
    [large], [small] = (each.rounds for each in stage.contenders)
    messages = large.messages - small.messages
    held = (large.peak_bytes - small.peak_bytes) / messages - len(body(0))
    return Spread.of([held / _KILOBYTE])


GOALS = (
    Goal(
        "CPU a message, the whole job",
        "hand loop with boto3",
        stages.JOB,
        _ratio(_cpu),
        0.4,
    ),
    Goal("CPU, the whole command", "hand loop as a command", stages.COMMAND, _ratio(_cpu), 1.0),
    Goal("wall, the whole command", "hand loop as a command", stages.COMMAND, _ratio(_wall), 1.0),
    Goal(
        "CPU, the command on an empty queue",
        "`import dagster` in a process of its own",
        stages.EMPTY_COMMAND,
        _ratio(_cpu),
        1.67,
    ),
    Goal(
        "wall seconds, the command on an empty queue",
        "no baseline: seconds",
        stages.EMPTY_COMMAND,
        _own(_wall),
        2.5,
    ),
    Goal(
        "CPU seconds of an empty batch", "no baseline: seconds", stages.EMPTY_JOB, _own(_cpu), 0.4
    ),
    Goal(
        "wall, receive and delete at 15 ms a request",
        "boto3 in tens by four threads",
        stages.RECEIVE_FAR,
        _ratio(_wall),
        0.2,
    ),
    Goal(
        "CPU, decode, mask and rules",
        "the same value by value, each rule once",
        stages.MASK,
        _ratio(_cpu),
        0.2,
    ),
    Goal(
        "wall, commit",
        "COPY into a table with the three useful indexes",
        stages.COMMIT,
        _ratio(_wall),
        1.5,
    ),
    Goal(
        "memory of a large batch, kB a message beyond the bodies",
        "no baseline: kilobytes",
        stages.MEMORY,
        _bytes_beyond_bodies,
        2.3,
    ),
)


def goals_table(results: Sequence[StageResult]) -> str:
    """Each goal with its figure and whether it is met; not measured if its stage was left out."""
    return table(
        ["", "compared with", "measured", "goal", ""],
        [_row(goal, stage_named(results, goal.stage)) for goal in GOALS],
        texts=2,
    )


def _row(goal: Goal, stage: StageResult | None) -> list[str]:
    limit = f"≤ {number(goal.limit)}"
    if stage is None:
        return [goal.name, goal.compared_with, "not measured", limit, ""]
    measured = goal.measured(stage)
    verdict = "met" if measured.median <= goal.limit else "not met"
    return [goal.name, goal.compared_with, ranged(measured), limit, verdict]
