"""A field is added by one declaration: everything else in Python follows."""

from __future__ import annotations

import re
from pathlib import Path

from fetch_mask_assets_tests.added_field.declaration import run_scenario, scratch_copy

_SCENARIO = Path(__file__).parent / "scenario.py"


def test_a_field_that_is_declared_goes_through_the_whole_product(tmp_path: Path) -> None:
    done = run_scenario(scratch_copy(tmp_path), _SCENARIO)

    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= len(re.findall(r"^def test_", _SCENARIO.read_text(), re.MULTILINE))
