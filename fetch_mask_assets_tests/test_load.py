"""A small backlog, drained as `make load` drains a large one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_MESSAGES = 3_000


@pytest.mark.timeout(600)
def test_the_sensor_drains_a_backlog_under_a_memory_limit_with_no_more_runs_than_it_needs(
    tmp_path: Path,
) -> None:
    account = _load(tmp_path, "--batch", "1000")
    assert (account["received"], account["loaded"], account["rows"]) == (_MESSAGES,) * 3
    assert account["different_users"] == account["ledger_lines"] == _MESSAGES
    assert (account["left_on_queue"], account["on_dead_letter_queue"]) == (0, 0)
    assert account["runs_failed"] == 0
    assert account["runs"] <= 2 * account["runs_needed"]
    assert account["most_runs_at_once"] <= 2
    # The run that deletes is the only one left.
    assert account["stored_runs_after_pruning"] == 1
    assert account["stored_events_after_pruning"] < account["stored_events_before_pruning"] / 3


@pytest.mark.timeout(600)
def test_one_process_takes_batch_after_batch_without_growing(tmp_path: Path) -> None:
    account = _load(tmp_path, "--batch", "250", "--one-process")
    assert (account["exit_code"], account["left_on_queue"]) == (0, 0)
    assert account["loaded"] == account["rows"] == _MESSAGES
    assert account["batches"] >= _MESSAGES / 250
    assert account["last_to_second"] < 1.5


def _load(directory: Path, *options: str) -> dict[str, float]:
    done = subprocess.run(  # noqa: S603 (our own script, no shell)
        [
            sys.executable,
            str(_ROOT / "benchmarks/load.py"),
            "--messages",
            str(_MESSAGES),
            "--json",
            *options,
        ],
        env={**os.environ, "PYTHONPATH": str(_ROOT), "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    account: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return account
