"""`make chaos`: runs scenarios for as long as one likes, and says what it found.

Belongs here: the rounds, the seeds, and what is printed. A result is a line of JSON, for `report`.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import click

from fetch_mask_assets.local_stack import stack as local_stack
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets_tests.chaos.runner import Result, run_scenario
from fetch_mask_assets_tests.chaos.scenarios import SCENARIOS, Scenario
from fetch_mask_assets_tests.chaos.world import MissingProgramError


@click.command()
@click.option("--seed", type=int, help="Gives the faults of an earlier campaign again.")
@click.option("--minutes", type=float, default=0, help="Rounds go on for so long; 0: one round.")
@click.option("--only", default="", help="Scenarios whose name matches this regular expression.")
@click.option("--results", type=click.Path(path_type=Path), help="A line of JSON for each.")
def campaign(seed: int | None, minutes: float, only: str, results: Path | None) -> None:
    """Run every fault against a stack of its own; exit code 1 if something does not hold."""
    chosen = _chosen(only)
    commit = commit_of(Path(__file__).parent)
    seed = secrets.randbelow(2**31) if seed is None else seed
    click.echo(f"SEED={seed}: {len(chosen)} scenarios; the n-th round has the seed SEED + n - 1")
    click.echo(f"commit {commit}")
    bad = 0
    with tempfile.TemporaryDirectory() as top:
        for result in _rounds(Path(top), chosen, seed, minutes):
            bad += not result.holds
            _say(result)
            if results:
                with results.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(as_line(result, commit)) + "\n")
    sys.exit(bool(bad))


def commit_of(directory: Path) -> str:
    """The commit of a checkout, with "+" if it was changed since; "unknown" without git."""
    try:
        commit = _git(directory, "rev-parse", "--short", "HEAD")
        return commit + ("+" if _git(directory, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(directory: Path, *arguments: str) -> str:
    command = ("git", "-C", str(directory), *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (no input)
    return done.stdout.strip()


def _chosen(only: str) -> list[Scenario]:
    chosen = [each for each in SCENARIOS if re.search(only, each.name)]
    if not chosen:
        raise click.UsageError(f"no scenario has a name that matches {only!r}.")
    return chosen


def as_line(result: Result, commit: str) -> dict[str, object]:
    """A result as JSON."""
    return {
        "name": result.scenario.name,
        "row": result.scenario.row,
        "checks": list(result.scenario.checks),
        "seed": result.seed,
        "seconds": round(result.seconds, 1),
        "found": result.found,
        "commit": commit,
        "untried": result.untried,
    }


def _rounds(top: Path, chosen: list[Scenario], seed: int, minutes: float) -> Iterator[Result]:
    checkout = top / "checkout"
    checkout.mkdir()
    give_up = time.monotonic() + 60 * minutes
    stack = local_stack.up(checkout)
    try:
        for number in count():
            for index, scenario in enumerate(chosen):
                directory = top / f"{number}-{index}"
                directory.mkdir()
                yield _run(scenario, stack, directory, seed + number)
                if minutes and time.monotonic() > give_up:
                    return
            if not minutes:
                return
    finally:
        local_stack.down(checkout, delete=True)


def _run(scenario: Scenario, stack: Stack, directory: Path, seed: int) -> Result:
    try:
        return run_scenario(scenario, stack, directory, seed)
    except MissingProgramError as error:
        return Result(scenario, seed, 0.0, untried=str(error))
    except Exception as error:  # noqa: BLE001 (a campaign of hours goes on, and says so)
        traceback.print_exc()
        return Result(scenario, seed, 0.0, {"harness": [f"failed itself: {type(error).__name__}"]})


def _say(result: Result) -> None:
    verdict = "holds" if result.holds else f"DOES NOT HOLD: {result.found}"
    verdict = f"NOT TRIED: {result.untried}" if result.untried else verdict
    name = f"{result.scenario.row} / {result.scenario.name}"
    click.echo(f"[{result.seed}] {result.seconds:5.0f} s  {name}: {verdict}")


if __name__ == "__main__":
    campaign()
