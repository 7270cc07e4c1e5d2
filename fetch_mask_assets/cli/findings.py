"""Findings of readiness, printed one per line."""

from __future__ import annotations

from collections.abc import Iterable

import click

from fetch_mask_assets.pipeline.warehouse.readiness import Finding


def print_findings(found: Iterable[Finding]) -> None:
    """Print each finding with its mark, ok or FAIL."""
    for each in found:
        mark, color = ("ok  ", "green") if each.ok else ("FAIL", "red")
        click.echo(f"{click.style(mark, fg=color)}  {each.name}: {each.description}")
