"""Progress on standard error, if that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def progress_count(label: str) -> Iterator[Callable[[int], None]]:
    """Shows a growing count of messages; yields a call that adds to it."""
    with _progress(TextColumn("{task.completed:.0f} messages")) as progress:
        task = progress.add_task(label, total=None)
        yield lambda more: progress.advance(task, more)


@contextmanager
def progress_text() -> Iterator[Callable[[str], None]]:
    """Shows one line of text; yields a call that replaces it."""
    with _progress() as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=text)


def _progress(*columns: TextColumn) -> Progress:
    console = Console(stderr=True)
    shown = (SpinnerColumn(), TextColumn("{task.description}"), *columns, TimeElapsedColumn())
    return Progress(*shown, console=console, disable=not console.is_terminal)
