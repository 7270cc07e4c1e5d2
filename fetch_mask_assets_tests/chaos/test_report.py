"""The page says what was tried, what was found, and what was not tried."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from click.testing import CliRunner

from fetch_mask_assets_tests.chaos.campaign import as_line, campaign, commit_of
from fetch_mask_assets_tests.chaos.invariants import ALL
from fetch_mask_assets_tests.chaos.report import Line, as_page, report
from fetch_mask_assets_tests.chaos.runner import Result
from fetch_mask_assets_tests.chaos.scenarios import SCENARIOS

FIRST = SCENARIOS[0]
GOOD = Line(FIRST.name, FIRST.row, ALL, 7, 60.0, {}, "1a2b3c4")
_LINES = tuple(replace(GOOD, name=each.name, row=each.row) for each in SCENARIOS)


def _report(results: Path, page: Path, lines: Sequence[Line]) -> str:
    results.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines))
    done = CliRunner().invoke(report, [str(results), "--page", str(page)])
    assert done.exit_code == 0, done.output
    return done.output


def _git(directory: Path, *arguments: str) -> str:
    command = ("git", "-C", str(directory), *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (no input)
    return done.stdout.strip()


def test_a_fault_that_held_has_a_line_and_nothing_is_found() -> None:
    page = as_page([GOOD, replace(GOOD, seed=8)])
    assert f"| {FIRST.row} | {FIRST.name} | 2 | I1 to I9 | nothing |" in page
    assert "Nothing was found in these runs." in page
    assert (
        "2 runs of 1 scenarios, 2 minutes in all, with 2 seeds from 7 on, of commit 1a2b3c4."
        in page
    )


def test_the_page_names_every_commit_that_its_results_are_of() -> None:
    page = as_page([GOOD, replace(GOOD, commit="5d6e7f8+")])
    assert "of commits 1a2b3c4, 5d6e7f8+." in page


def test_what_this_machine_could_not_try_is_listed_with_the_reason() -> None:
    page = as_page([GOOD, replace(_LINES[1], untried="needs the program faketime")])
    assert f"- {SCENARIOS[1].row}: {SCENARIOS[1].name} (needs the program faketime)" in page
    assert "1 runs of 1 scenarios" in page


def test_the_page_is_written_once_every_scenario_has_a_result(tmp_path: Path) -> None:
    results, page = tmp_path / "results", tmp_path / "page.md"
    page.write_text("the page of a whole round")

    said = _report(results, page, _LINES[:-1])
    assert "stays as it was: there is no result of 1 scenarios" in said
    assert page.read_text() == "the page of a whole round"

    _report(results, page, _LINES)
    assert "of commit 1a2b3c4" in page.read_text()


def test_a_line_of_a_campaign_carries_the_commit_and_can_be_read_back() -> None:
    line = as_line(Result(FIRST, 7, 60.0), "1a2b3c4")
    read = Line(**json.loads(json.dumps(line)))
    assert (read.name, read.seed, read.commit, read.untried) == (FIRST.name, 7, "1a2b3c4", "")


def test_the_commit_of_a_checkout_says_whether_it_was_changed(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "unknown"
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, *identity, "commit", "--quiet", "--allow-empty", "--message", "first")
    commit = commit_of(tmp_path)
    assert commit == _git(tmp_path, "rev-parse", "--short", "HEAD")
    (tmp_path / "new.py").touch()
    assert commit_of(tmp_path) == f"{commit}+"


def test_a_name_that_nothing_matches_is_an_error_of_usage() -> None:
    done = CliRunner().invoke(campaign, ["--only", "no such fault", "--minutes", "1"])
    assert done.exit_code == 2
    assert "no scenario has a name that matches 'no such fault'" in done.output


def test_what_does_not_hold_is_said_with_its_seed() -> None:
    page = as_page([GOOD, replace(GOOD, seed=8, found={"I1": ["3 messages are nowhere"]})])
    assert f"| {FIRST.row} | {FIRST.name} | 2 | I1 to I9 | 1 of them |" in page
    assert f"{FIRST.row}: {FIRST.name} (seed 8): I1: 3 messages are nowhere" in page


def test_a_scenario_without_a_result_is_listed_as_not_tried() -> None:
    page = as_page([GOOD])
    assert f"- {SCENARIOS[1].row}: {SCENARIOS[1].name} (no result)" in page
    assert f"{FIRST.name} (no result)" not in page
