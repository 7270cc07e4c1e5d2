"""The progress of `fetch-mask upgrade-md5` on standard error; silent without a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fetch_mask_assets.cli.progress import progress_text
from fetch_mask_assets.operations.md5_upgrade.postgres import ReplaceCount


class TerminalDisplay:
    """Displays a bar for the search, and a line of text for the replacement."""

    @contextmanager
    def search(self, field: str, size: int) -> Iterator[Callable[[int], None]]:
        """Display the share of values tried, the rate and the remaining time."""
        console = Console(stderr=True)
        with Progress(*_columns(), console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(f"Trying values of {field}", total=size or None)
            yield lambda values: progress.advance(task, values)

    @contextmanager
    def replacement(self, field: str) -> Iterator[Callable[[ReplaceCount], None]]:
        """Display the counts of digests and rows replaced."""
        with progress_text() as show:
            yield lambda done: show(
                f"{field}: {done.digests:,} digests replaced in {done.rows:,} rows"
            )


class _RateColumn(ProgressColumn):
    """Million values a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed / 1e6:.1f} M/s")


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
