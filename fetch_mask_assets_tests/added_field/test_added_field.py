"""A field is added by one declaration and one line of a migration: everything else follows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fetch_mask_assets_tests.added_field.declaration import run_scenario, scratch_copy


@pytest.mark.parametrize("name", ["scenario.py", "database_scenario.py"])
def test_a_field_that_is_declared_goes_through_the_whole_product(name: str, tmp_path: Path) -> None:
    scenario = Path(__file__).parent / name

    done = run_scenario(scratch_copy(tmp_path), scenario)

    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    written = re.findall(r"^def test_", scenario.read_text(encoding="utf-8"), re.MULTILINE)
    assert int(passed[1]) >= len(written)
