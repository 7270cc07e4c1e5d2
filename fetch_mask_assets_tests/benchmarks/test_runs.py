"""Every stage and every size with few messages: the counts, never the times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.arena import is_installed
from benchmarks.processes import CHECKOUT
from benchmarks.stages import STAGES, Stage
from fetch_mask_assets.local_stack.stack import Stack

_MESSAGES = 200
_FEW = ("--messages", str(_MESSAGES), "--repeats", "1")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_each_contender_of_a_stage_takes_every_message(
    stage: Stage, stack: Stack, tmp_path: Path
) -> None:
    [result] = _measured(stack, tmp_path, "benchmarks", *_FEW, "--only", stage.name)["stages"]
    present = list(filter(is_installed, stage.contenders))

    assert [each["name"] for each in result["contenders"]] == [each.name for each in present]
    for contender, measured in zip(present, result["contenders"], strict=True):
        expected = 0 if stage.is_empty else round(_MESSAGES * contender.share)
        assert {each["messages"] for each in measured["rounds"]} == {expected}
        # Ten messages in a request: a tenth to receive, a tenth to delete.
        least = 2 * expected / 10 if stage.queue else 0
        assert all(each["requests"] >= least for each in measured["rounds"])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("part", "sizes", "messages"),
    [
        ("batches", [1_000], [1_000]),
        ("ledger", [0, 500, 1_000, 1_500, 2_000], [_MESSAGES] * 5),
        ("table", [0, 500, 1_000, 1_500, 2_000], [_MESSAGES] * 5),
        ("runs", [1, 2, 3, 4], [_MESSAGES, 2 * _MESSAGES, 3 * _MESSAGES, 4 * _MESSAGES]),
    ],
)
def test_the_growth_is_measured_at_each_size(
    part: str, sizes: list[int], messages: list[int], stack: Stack, tmp_path: Path
) -> None:
    small = ("--largest-batch=1000", "--ledger-millions=0.002", "--table-millions=0.002")
    [curve] = _measured(stack, tmp_path, "benchmarks.growth", *_FEW, *small, "--only", part)

    assert [point["size"] for point in curve["points"]] == sizes
    assert [point["rounds"][0]["messages"] for point in curve["points"]] == messages


def test_a_profile_names_the_functions_of_the_product(stack: Stack) -> None:
    done = _run(stack, "benchmarks", *_FEW, "--profile", "mask")

    assert "mask_and_check" in done.stderr


def _measured(stack: Stack, directory: Path, module: str, *options: str) -> Any:  # noqa: ANN401 (JSON)
    file = directory / "measured.json"
    _run(stack, module, *options, "--json", str(file))
    return json.loads(file.read_text(encoding="utf-8"))


def _run(stack: Stack, module: str, *options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(  # noqa: S603 (our own module, no shell)
        [sys.executable, "-m", module, *options],
        env={**os.environ, **stack.environment},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
