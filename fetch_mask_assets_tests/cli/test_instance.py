"""Dagster's instance as several commands open it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fetch_mask_assets.cli.instance import InstanceError, dagster_instance

_TOGETHER = 4
_OPEN = """
import sys
from fetch_mask_assets.cli.instance import dagster_instance
print("ready", flush=True)
sys.stdin.readline()
with dagster_instance() as instance:
    print(instance.get_runs_count(), flush=True)
"""


def test_commands_that_make_a_new_home_at_one_moment_all_open_it(tmp_path: Path) -> None:
    opening = [_process(tmp_path) for _ in range(_TOGETHER)]
    for process in opening:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in opening:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate() for process in opening]
    assert [process.returncode for process in opening] == [0] * _TOGETHER, said
    assert {output for output, _ in said} == {"0\n"}


def test_a_home_that_is_not_there_is_named_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "missing"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with pytest.raises(InstanceError, match="check DAGSTER_HOME"), dagster_instance():
        pass
    assert not home.exists()


def test_a_setting_that_dagster_yaml_asks_for_in_vain_is_named_before_a_run_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text(
        "run_queue:\n  max_concurrent_runs:\n    env: SURELY_NOT_SET\n"
    )
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with pytest.raises(InstanceError, match="Not set: SURELY_NOT_SET"), dagster_instance():
        pass


def _process(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-c", _OPEN],
        env={**os.environ, "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "yes"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
