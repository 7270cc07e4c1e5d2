"""Every stage with few messages: the counts, never the times."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.arena import is_installed
from benchmarks.stages import STAGES, Stage
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets_tests.benchmarks.runs import FEW, MESSAGES, measured, run


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_each_contender_of_a_stage_takes_every_message(
    stage: Stage, stack: Stack, tmp_path: Path
) -> None:
    [result] = measured(stack, tmp_path, "benchmarks", *FEW, "--only", stage.name)["stages"]
    present = list(filter(is_installed, stage.contenders))

    assert [each["name"] for each in result["contenders"]] == [each.name for each in present]
    for contender, own in zip(present, result["contenders"], strict=True):
        expected = 0 if stage.is_empty else round(MESSAGES * contender.share)
        assert {each["messages"] for each in own["rounds"]} == {expected}
        # Ten messages in a request: a tenth to receive, a tenth to delete.
        least = 2 * expected / 10 if stage.queue else 0
        assert all(each["requests"] >= least for each in own["rounds"])


@pytest.mark.long
def test_a_profile_names_the_functions_of_the_product(stack: Stack) -> None:
    done = run(stack, "benchmarks", *FEW, "--profile", "mask")

    assert "mask_and_check" in done.stderr
