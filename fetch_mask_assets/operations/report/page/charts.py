"""The bars of a chart: numbers in, rectangles out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from fetch_mask_assets.operations.report.part import Period

WIDTH, HEIGHT = 600, 120
"""The size of a chart in its own units."""

_MAX_COLUMNS = 400
_GAP = 0.2


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle: its place, its size, and the number of its series."""

    x: float
    y: float
    width: float
    height: float
    series: int


def daily(
    days: Iterable[tuple[date, Sequence[int]]], period: Period
) -> tuple[tuple[date, Sequence[int]], ...]:
    """Every day of a period, empty ones too; of a period that is too long, only the given days."""
    given: Mapping[date, Sequence[int]] = dict(days)
    first = period.since.date()
    last = (period.until - timedelta(microseconds=1)).date()
    count = (last - first).days + 1
    if count > _MAX_COLUMNS:
        return tuple(given.items())
    every = (first + timedelta(days=number) for number in range(count))
    return tuple((day, given.get(day, ())) for day in every)


def columns(stacks: Sequence[Sequence[int]]) -> tuple[Bar, ...]:
    """Stacked columns side by side, the highest as high as the chart."""
    highest = max(map(sum, stacks), default=0)
    if not highest:
        return ()
    step = WIDTH / len(stacks)
    return tuple(
        Bar(
            x=round((number + _GAP / 2) * step, 3),
            y=round(HEIGHT * (1 - (sum(stack[:series]) + value) / highest), 3),
            width=round((1 - _GAP) * step, 3),
            height=round(HEIGHT * value / highest, 3),
            series=series,
        )
        for number, stack in enumerate(stacks)
        for series, value in enumerate(stack)
        if value
    )
