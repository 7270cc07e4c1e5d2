"""Plots of the growth as SVG: the same figures give the same file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.figures import Curve, Round

_LINES: tuple[tuple[str, Callable[[Round], float]], ...] = (
    ("wall", lambda each: each.wall_seconds),
    ("CPU", lambda each: each.cpu_seconds),
    ("Postgres CPU", lambda each: each.server_cpu_seconds),
)


def write_plot(curve: Curve, path: Path) -> None:
    """Writes the microseconds a message at each size; bars from the lowest to the highest."""
    # Without the salt the ids of the elements are random.
    with mpl.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.add_subplot()
        sizes = [point.size for point in curve.points]
        for label, quantity in _LINES:
            spreads = [point.microseconds(quantity) for point in curve.points]
            medians = [each.median for each in spreads]
            below = [each.median - each.low for each in spreads]
            above = [each.high - each.median for each in spreads]
            axes.errorbar(
                sizes,
                medians,
                yerr=[below, above],
                label=label,
                marker="o",
                markersize=3,
                capsize=2,
            )
        axes.set_xlabel(f"{curve.title}, {curve.size_name}")
        axes.set_ylabel("µs a message")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        # Without a date: the file changes only with its figures.
        figure.savefig(path, format="svg", metadata={"Date": None})
