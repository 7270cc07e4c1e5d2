"""The measured figures: rounds, their medians and their spread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Self

_MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True)
class Round:
    """One piece of work, measured once.

    `peak_bytes` is the highest of the process so far, `stored_bytes` the growth of the database.
    """

    messages: int
    cpu_seconds: float
    wall_seconds: float
    server_cpu_seconds: float
    requests: int
    peak_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several values, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The spread of at least one value."""
        ordered = sorted(values)
        return cls(median(ordered), ordered[0], ordered[-1])


@dataclass(frozen=True, slots=True)
class ContenderResult:
    """The rounds of one contender, in their order."""

    name: str
    rounds: tuple[Round, ...]

    def spread(self, quantity: Callable[[Round], float]) -> Spread:
        """The spread of a quantity over the rounds."""
        return Spread.of(map(quantity, self.rounds))


@dataclass(frozen=True, slots=True)
class StageResult:
    """The contenders of a stage; the first is the product, the second its baseline."""

    name: str
    title: str
    contenders: tuple[ContenderResult, ...]

    @property
    def is_empty(self) -> bool:
        """Whether no message was taken."""
        return not self.contenders[0].rounds[0].messages

    def ratio(self, quantity: Callable[[Round], float]) -> Spread:
        """The product's quantity to the baseline's, round by round."""
        own, baseline = (map(quantity, each.rounds) for each in self.contenders[:2])
        return Spread.of(a / b for a, b in zip(own, baseline, strict=True))

    @classmethod
    def from_json(cls, stage: Mapping[str, Any]) -> Self:
        """The result that `as_json` wrote."""
        contenders = (
            ContenderResult(each["name"], tuple(Round(**values) for values in each["rounds"]))
            for each in stage["contenders"]
        )
        return cls(stage["name"], stage["title"], tuple(contenders))

    def as_json(self) -> dict[str, Any]:
        """Every round, for a file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Point:
    """The rounds at one size. `baseline` are those of the bare COPY in the same turns, if any."""

    size: int
    rounds: tuple[Round, ...]
    baseline: tuple[Round, ...] = ()

    def microseconds(self, quantity: Callable[[Round], float]) -> Spread:
        """The spread of a quantity a message."""
        return Spread.of(_MICROSECONDS * quantity(each) / each.messages for each in self.rounds)

    @property
    def wall_to_baseline(self) -> Spread:
        """The wall time to that of the baseline, turn by turn."""
        turns = zip(self.rounds, self.baseline, strict=True)
        return Spread.of(own.wall_seconds / bare.wall_seconds for own, bare in turns)


@dataclass(frozen=True, slots=True)
class Curve:
    """Something that grows, with a point for each size."""

    name: str
    title: str
    size_name: str
    points: tuple[Point, ...]


def stage_named(results: Sequence[StageResult], name: str) -> StageResult | None:
    """The result of a stage; None if it was not measured."""
    return next((each for each in results if each.name == name), None)
