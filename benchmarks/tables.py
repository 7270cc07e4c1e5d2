"""Tables of figures as Markdown, which a terminal shows as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmarks.figures import ContenderResult, Round, Spread, StageResult

_MEGABYTE = 2**20
_MICROSECONDS = 1e6

Quantity = Callable[[Round], float]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table with columns of equal width: first texts, then numbers to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [_line(row, widths, texts) for row in (headings, *rows)]
    return "\n".join([lines[0], _rule(widths, texts), *lines[1:]])


def stage_table(stage: StageResult) -> str:
    """The figures of each contender; the ratios are to the baseline, the second of them."""
    columns = _EMPTY_COLUMNS if stage.is_empty else _COLUMNS
    baseline = stage.contenders[min(1, len(stage.contenders) - 1)]
    rows = [
        [each.name, *_cells(each, columns), _ratio(each, baseline)] for each in stage.contenders
    ]
    headings = ["", *(heading for heading, _, _ in columns), "CPU to baseline"]
    return table(headings, rows)


def number(value: float) -> str:
    """A number with about three digits."""
    for limit, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= limit:
            return f"{value:,.{digits}f}"
    return f"{value:.2g}" if value else "0"


def ranged(spread: Spread) -> str:
    """The median with the lowest and the highest value."""
    return f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"


def _cells(
    contender: ContenderResult, columns: Sequence[tuple[str, Quantity, bool]]
) -> Iterator[str]:
    for _, quantity, has_range in columns:
        spread = contender.spread(quantity)
        yield ranged(spread) if has_range else number(spread.median)


def _ratio(contender: ContenderResult, baseline: ContenderResult) -> str:
    pairs = zip(contender.rounds, baseline.rounds, strict=True)
    return number(Spread.of(a.cpu_seconds / b.cpu_seconds for a, b in pairs).median)


_COLUMNS: tuple[tuple[str, Quantity, bool], ...] = (
    ("CPU, µs a message", lambda each: each.cpu_seconds / each.messages * _MICROSECONDS, True),
    ("wall, µs a message", lambda each: each.wall_seconds / each.messages * _MICROSECONDS, True),
    (
        "Postgres CPU, µs a message",
        lambda each: each.server_cpu_seconds / each.messages * _MICROSECONDS,
        False,
    ),
    ("requests a message", lambda each: each.requests / each.messages, False),
    ("stored bytes a message", lambda each: each.stored_bytes / each.messages, False),
    ("peak, MB", lambda each: each.peak_bytes / _MEGABYTE, False),
)
_EMPTY_COLUMNS: tuple[tuple[str, Quantity, bool], ...] = (
    ("CPU, s", lambda each: each.cpu_seconds, True),
    ("wall, s", lambda each: each.wall_seconds, True),
    ("Postgres CPU, s", lambda each: each.server_cpu_seconds, False),
    ("requests", lambda each: each.requests, False),
    ("peak, MB", lambda each: each.peak_bytes / _MEGABYTE, False),
)


def _line(cells: Sequence[str], widths: Sequence[int], texts: int) -> str:
    padded = [
        cell.ljust(width) if column < texts else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def _rule(widths: Sequence[int], texts: int) -> str:
    ends = ("-" if column < texts else ":" for column in range(len(widths)))
    return f"|{'|'.join('-' * (width + 1) + end for width, end in zip(widths, ends, strict=True))}|"
