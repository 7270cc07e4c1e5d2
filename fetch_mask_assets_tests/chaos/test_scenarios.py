"""A fixed selection of the faults, for every change; `make chaos` runs all of them."""

from __future__ import annotations

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
        "SIGKILL half-way through the deletes",
        "SIGTERM after receive",
        "SIGTERM inside the copy",
        "commit sent, cut",
        "commit answered, cut",
        "connections are refused",
        "reset in the copy, and away",
        "one row breaks a new constraint",
        "failed entries, the service's fault",
        "two consumers",
        "five deliveries, shuffled",
        "empty and partial answers",
        "the in-flight limit is reached",
        "access is denied",
        "rotated between two runs",
    }
)


def _marks(scenario: Scenario) -> tuple[pytest.MarkDecorator, ...]:
    # One of the others is eight kills in a row.
    others = (pytest.mark.chaos, pytest.mark.timeout(900))
    return () if scenario.name in FOR_EVERY_CHANGE else others


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
        pytest.skip(str(missing))

    assert result.found == {}
