"""The page says what was tried, what was found, and what was not tried."""

from __future__ import annotations

from dataclasses import replace

from fetch_mask_assets_tests.chaos.invariants import ALL
from fetch_mask_assets_tests.chaos.report import Line, as_page
from fetch_mask_assets_tests.chaos.scenarios import SCENARIOS

FIRST = SCENARIOS[0]
GOOD = Line(FIRST.name, FIRST.row, ALL, 7, 60.0, {})


def test_a_fault_that_held_has_a_line_and_nothing_is_found() -> None:
    page = as_page([GOOD, replace(GOOD, seed=8)])
    assert f"| {FIRST.row} | {FIRST.name} | 2 | I1 to I9 | nothing |" in page
    assert "Nothing was found in these runs." in page
    assert "2 runs of 1 scenarios, 2 minutes in all, with 2 seeds from 7 on." in page


def test_what_does_not_hold_is_said_with_its_seed() -> None:
    page = as_page([GOOD, replace(GOOD, seed=8, found={"I1": ["3 messages are nowhere"]})])
    assert f"| {FIRST.row} | {FIRST.name} | 2 | I1 to I9 | 1 of them |" in page
    assert f"{FIRST.row}: {FIRST.name} (seed 8): I1: 3 messages are nowhere" in page


def test_a_scenario_without_a_result_is_listed_as_not_tried() -> None:
    page = as_page([GOOD])
    assert f"- {SCENARIOS[1].row}: {SCENARIOS[1].name} (no result)" in page
    assert f"{FIRST.name} (no result)" not in page
