"""`python -m benchmarks.growth`: the cost of a message as batches, ledger, table and runs grow.

The ledger and the table are filled by the server with synthetic rows, in a database of their own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TextIO

import click

from benchmarks.arena import Arena, measure, open_arena, open_seats
from benchmarks.document import JSON_FILE, PAGE, write_section
from benchmarks.figures import Curve, Point
from benchmarks.growth_plots import write_plot
from benchmarks.stages import COMMIT, JOB, STAGES, Stage
from benchmarks.synthetic_rows import fill_ledger, fill_table
from benchmarks.tables import number, ranged, table

SECTION = "growth"

_BATCHES = (1_000, 3_000, 10_000, 30_000, 100_000)
_STEPS = 4
_MILLION = 1_000_000

Fill = Callable[[str, int, int, int], None]
"""Adds rows from one number to another, of a total, to the database with a URL."""


def batches(arena: Arena, rounds: int, largest: int) -> Curve:
    """The job with batches of different sizes, up to the largest."""
    product = _product_alone(JOB)
    points = []
    for messages in (each for each in _BATCHES if each <= largest):
        [result] = measure(replace(arena, messages=messages), product, rounds).contenders
        points.append(Point(messages, result.rounds))
    return Curve("batches", "Size of a batch", "messages", tuple(points))


def ledger(arena: Arena, rounds: int, millions: float) -> Curve:
    """The commit as the ledger grows."""
    points = _commits(arena, rounds, fill_ledger, round(millions * _MILLION))
    return Curve("ledger", "Rows of the ledger", "rows", tuple(points))


def logins(arena: Arena, rounds: int, millions: float) -> Curve:
    """The commit as user_logins grows."""
    points = _commits(arena, rounds, fill_table, round(millions * _MILLION))
    return Curve("table", "Rows of user_logins", "rows", tuple(points))


def runs(arena: Arena, rounds: int, max_runs: int) -> Curve:
    """Several runs of the job at once, each a process, on one queue and one database."""
    points = []
    for at_once in range(1, max_runs + 1):
        with open_seats(arena, _product_alone(JOB), processes=at_once) as [seat]:
            seat.round()
            points.append(Point(at_once, tuple(seat.round() for _ in range(rounds))))
    return Curve("runs", "Runs at once", "runs", tuple(points))


def _commits(arena: Arena, rounds: int, fill: Fill, total: int) -> Iterator[Point]:
    """Commits beside a bare COPY into a small table, in turns, after each quarter of the rows."""
    [stage] = [stage for stage in STAGES if stage.name == COMMIT]
    with open_seats(arena, replace(stage, contenders=stage.contenders[:2])) as [product, bare]:
        filled = 0
        for step in range(_STEPS + 1):
            size = total * step // _STEPS
            fill(product.database_url, filled, size, total)
            filled = size
            for seat in (product, bare):
                seat.round()
            turns = [(product.round(), bare.round()) for _ in range(rounds)]
            own, baseline = zip(*turns, strict=True)
            yield Point(size, own, baseline)


def _product_alone(name: str) -> Stage:
    [stage] = [stage for stage in STAGES if stage.name == name]
    return replace(stage, contenders=stage.contenders[:1])


def curve_table(curve: Curve) -> str:
    """A row for each size; the last column compares it with the first size."""
    first = curve.points[0]
    has_baseline = bool(first.baseline)
    headings = [curve.size_name, "CPU, µs a message", "Postgres CPU", "wall"]
    headings += ["wall to bare COPY", "to the smallest"] if has_baseline else ["to the smallest"]
    return table(headings, [_row(point, first) for point in curve.points])


def _row(point: Point, first: Point) -> list[str]:
    cells = [
        f"{point.size:,}",
        ranged(point.microseconds(lambda each: each.cpu_seconds)),
        number(point.microseconds(lambda each: each.server_cpu_seconds).median),
        ranged(point.microseconds(lambda each: each.wall_seconds)),
    ]
    if point.baseline:
        ratio = point.wall_to_baseline
        change = ratio.median / first.wall_to_baseline.median
        return [*cells, ranged(ratio), number(change)]
    return [*cells, number(_cpu(point) / _cpu(first))]


def _cpu(point: Point) -> float:
    return point.microseconds(lambda each: each.cpu_seconds + each.server_cpu_seconds).median


def section(curves: Sequence[Curve]) -> str:
    """The tables and the plots as Markdown."""
    parts = [
        f"### {curve.title}\n\n{curve_table(curve)}\n\n"
        f"![{curve.title}: microseconds a message](pictures/{plot_name(curve)})"
        for curve in curves
    ]
    return "\n\n".join(parts)


def plot_name(curve: Curve) -> str:
    """The file of a curve's plot in docs/pictures."""
    return f"growth-{curve.name}.svg"


_PARTS = ("batches", "ledger", "table", "runs")


@click.command()
@click.option("--only", "only", multiple=True, type=click.Choice(_PARTS), help="Measure this part.")
@click.option("--messages", default=10_000, show_default=True, help="Messages of a commit or run.")
@click.option("--repeats", default=3, show_default=True, help="Rounds at each size.")
@click.option("--largest-batch", default=100_000, show_default=True, help="Messages of it.")
@click.option("--ledger-millions", default=5.0, show_default=True, help="Rows of the ledger.")
@click.option("--table-millions", default=10.0, show_default=True, help="Rows of user_logins.")
@click.option("--max-runs", default=4, show_default=True, help="Runs at once.")
@click.option("--json", "json_file", type=JSON_FILE, help="Write every round to this file.")
@click.option("--write-docs", is_flag=True, help="Write plots and tables into docs/.")
def main(  # noqa: PLR0913, PLR0917 (options)
    only: Sequence[str],
    messages: int,
    repeats: int,
    largest_batch: int,
    ledger_millions: float,
    table_millions: float,
    max_runs: int,
    json_file: TextIO | None,
    *,
    write_docs: bool,
) -> None:
    """Measure the cost of a message at growing sizes."""
    with open_arena(os.environ["LOGIN_DATABASE_URL"], messages) as arena:
        measured: dict[str, Callable[[], Curve]] = {
            "batches": lambda: batches(arena, repeats, largest_batch),
            "ledger": lambda: ledger(arena, repeats, ledger_millions),
            "table": lambda: logins(arena, repeats, table_millions),
            "runs": lambda: runs(arena, repeats, max_runs),
        }
        curves = [_printed(measured[name]()) for name in _PARTS if not only or name in only]
    if json_file:
        json.dump(list(map(asdict, curves)), json_file, indent=1)
    if write_docs:
        for curve in curves:
            write_plot(curve, PAGE.parent / "pictures" / plot_name(curve))
        write_section(SECTION, section(curves))


def _printed(curve: Curve) -> Curve:
    click.echo(f"\n{curve.title}\n\n{curve_table(curve)}")
    return curve


if __name__ == "__main__":
    main()
