"""A fixed selection of the faults, for every change; `make chaos` runs all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets_tests.chaos.runner import run_scenario
from fetch_mask_assets_tests.chaos.scenarios import SCENARIOS, Scenario

SEED = 4711
FOR_EVERY_CHANGE = frozenset(
    {
        "commit sent, cut",
        "commit answered, cut",
        "connections are refused",
        "reset in the copy, and away",
        "access is denied",
    }
)


def _marks(scenario: Scenario) -> tuple[pytest.MarkDecorator, ...]:
    return () if scenario.name in FOR_EVERY_CHANGE else (pytest.mark.chaos,)


def test_the_selection_names_scenarios_and_no_two_have_one_name() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert set(names) >= FOR_EVERY_CHANGE
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(each, id=each.name, marks=_marks(each)) for each in SCENARIOS],
)
def test_what_must_hold_holds_after_a_fault(
    scenario: Scenario, stack: Stack, tmp_path: Path
) -> None:
    result = run_scenario(scenario, stack, tmp_path, SEED)

    assert result.found == {}
