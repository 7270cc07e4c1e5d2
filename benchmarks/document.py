"""The files that the benchmarks write: JSON, and sections of docs/performance.md."""

from __future__ import annotations

import re
from pathlib import Path

import click

JSON_FILE = click.File("w", encoding="utf-8", lazy=False)
"""Opened before the measurement, which takes minutes."""

PAGE = Path(__file__).parents[1] / "docs/performance.md"


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replaces the text of a section, which is between two comments.

    Raises:
        ValueError: the page has no section of this name.
    """
    page.write_text(replaced(page.read_text(encoding="utf-8"), name, text), encoding="utf-8")


def replaced(document: str, name: str, text: str) -> str:
    """The document with another text between the comments of a section.

    Raises:
        ValueError: the document has no section of this name.
    """
    start, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"({re.escape(start)}).*?({re.escape(end)})", re.DOTALL)
    if not pattern.search(document):
        raise ValueError(f"the page has no section between {start} and {end}.")
    return pattern.sub(lambda found: f"{found[1]}\n\n{text}\n\n{found[2]}", document)
