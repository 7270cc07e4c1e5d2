"""`python -m benchmarks`: measures every stage of the product, beside other ways to do it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from typing import TextIO

import click

from benchmarks.arena import Arena, is_installed, measure, open_arena, profile
from benchmarks.document import JSON_FILE, write_section
from benchmarks.figures import StageResult
from benchmarks.goals import goals_table
from benchmarks.stages import STAGES, Stage
from benchmarks.tables import stage_table

SECTION = "benchmark"

_NAMES = click.Choice([stage.name for stage in STAGES])


@click.command()
@click.option("--only", "only", multiple=True, type=_NAMES, help="Measure this stage alone.")
@click.option("--messages", default=10_000, show_default=True, help="Messages of a round.")
@click.option("--repeats", default=5, show_default=True, help="Rounds of each contender.")
@click.option("--json", "json_file", type=JSON_FILE, help="Write every round to this file.")
@click.option("--profile", "profiled", type=_NAMES, help="Profile the product in this stage.")
@click.option("--write-docs", is_flag=True, help="Write the tables into docs/performance.md.")
def main(  # noqa: PLR0913 (options)
    only: Sequence[str],
    messages: int,
    repeats: int,
    json_file: TextIO | None,
    profiled: str | None,
    *,
    write_docs: bool,
) -> None:
    """Measure the product's stages in one run, each beside its baseline, in turns."""
    with open_arena(os.environ["LOGIN_DATABASE_URL"], messages) as arena:
        if profiled:
            [stage] = [stage for stage in STAGES if stage.name == profiled]
            profile(arena, stage)
            return
        stages = [stage for stage in STAGES if not only or stage.name in only]
        results = [_measured(arena, stage, repeats) for stage in stages]
    conditions = _conditions(messages, repeats)
    click.echo(f"\nGoals\n\n{goals_table(results)}\n\n{conditions}")
    if json_file:
        measured = {"conditions": conditions, "stages": [each.as_json() for each in results]}
        json.dump(measured, json_file, indent=1)
    if write_docs:
        write_section(SECTION, section(results, conditions))


def section(results: Sequence[StageResult], conditions: str) -> str:
    """The goals and the stages as Markdown."""
    stages = [f"### {each.title}\n\n{stage_table(each)}" for each in results]
    return "\n\n".join([conditions, f"### Goals\n\n{goals_table(results)}", *stages])


def _measured(arena: Arena, stage: Stage, repeats: int) -> StageResult:
    click.echo(f"\n{stage.title}\n")
    result = measure(arena, stage, repeats)
    click.echo(stage_table(result))
    for contender in stage.contenders:
        if not is_installed(contender):
            click.echo(f"Not measured, because it is not installed: {contender.name}.")
    return result


def _conditions(messages: int, repeats: int) -> str:
    load, _, _ = os.getloadavg()
    return (
        f"{messages:,} messages a round, {repeats} rounds of each in turns: medians, and the lowest"
        f" and highest in brackets. Python {platform.python_version()}, {os.cpu_count()}"
        f" processors, load {load:.1f}."
    )


if __name__ == "__main__":
    main()
