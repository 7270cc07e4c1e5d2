"""One fault of each kind for every change; `make test-long` and `make chaos` run all of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets_tests.chaos.runner import run_scenario
from fetch_mask_assets_tests.chaos.scenarios import SCENARIOS, Scenario
from fetch_mask_assets_tests.chaos.world import MissingProgramError

SEED = 4711
FOR_EVERY_CHANGE = frozenset(
    {
        "SIGKILL before commit",
        "SIGKILL after commit and before delete",
        "SIGTERM inside the copy",
        "commit answered, cut",
        "connections are refused",
        "reset in the copy, and away",
        "one row breaks a new constraint",
        "failed entries, the service's fault",
        "five deliveries, shuffled",
    }
)


def _marks(scenario: Scenario) -> tuple[pytest.MarkDecorator, ...]:
    # One scenario is eight kills in a row.
    long = pytest.mark.timeout(900)
    return (long,) if scenario.name in FOR_EVERY_CHANGE else (long, pytest.mark.chaos)


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
    try:
        result = run_scenario(scenario, stack, tmp_path, SEED)
    except MissingProgramError as missing:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(str(missing))

    assert result.found == {}
