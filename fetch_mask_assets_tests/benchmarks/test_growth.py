"""Every size of what grows, made small: the counts, never the times."""

from __future__ import annotations

from pathlib import Path

import pytest

from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets_tests.benchmarks.runs import FEW, MESSAGES, measured


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("part", "sizes", "messages"),
    [
        ("batches", [1_000], [1_000]),
        ("ledger", [0, 500, 1_000, 1_500, 2_000], [MESSAGES] * 5),
        ("table", [0, 500, 1_000, 1_500, 2_000], [MESSAGES] * 5),
        ("runs", [1, 2], [MESSAGES, 2 * MESSAGES]),
    ],
)
def test_the_growth_is_measured_at_each_size(
    part: str, sizes: list[int], messages: list[int], stack: Stack, tmp_path: Path
) -> None:
    small = (
        "--largest-batch=1000",
        "--ledger-millions=0.002",
        "--table-millions=0.002",
        "--max-runs=2",
    )
    [curve] = measured(stack, tmp_path, "benchmarks.growth", *FEW, *small, "--only", part)

    assert [point["size"] for point in curve["points"]] == sizes
    assert [point["rounds"][0]["messages"] for point in curve["points"]] == messages
