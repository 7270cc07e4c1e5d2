"""A small backlog, drained as `make load` drains a large one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.load import amiss

pytestmark = pytest.mark.servers
_ROOT = Path(__file__).parent.parent
_MESSAGES = 1_500
_BODY_BYTES = 60_000


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_sensor_drains_a_backlog_under_a_memory_limit_with_no_more_runs_than_it_needs(
    tmp_path: Path,
) -> None:
    account = _load(tmp_path, "--batch", "500")
    assert (account["received"], account["loaded"], account["rows"]) == (_MESSAGES,) * 3
    assert account["different_users"] == account["ledger_rows"] == _MESSAGES
    assert (account["left_on_queue"], account["on_dead_letter_queue"]) == (0, 0)
    assert account["runs_failed"] == 0
    assert account["runs"] <= 2 * account["runs_needed"]
    assert account["most_runs_at_once"] <= 2
    # The run that deletes is the only one left.
    assert account["stored_runs_after_pruning"] == 1
    assert account["stored_events_after_pruning"] < account["stored_events_before_pruning"] / 3


@pytest.mark.long
@pytest.mark.timeout(600)
def test_one_process_takes_batch_after_batch_without_growing(tmp_path: Path) -> None:
    account = _load(tmp_path, "--batch", "250", "--one-process", "--body-bytes", f"{_BODY_BYTES}")
    assert (account["exit_code"], account["left_on_queue"]) == (0, 0)
    assert account["loaded"] == account["rows"] == _MESSAGES
    assert account["batches"] >= _MESSAGES / 250
    grown = (
        account["peak_megabytes_to_the_last_batch"] - account["peak_megabytes_to_the_second_batch"]
    )
    later_bodies = (_MESSAGES - 2 * 250) * _BODY_BYTES / 2**20
    # Whoever kept the later batches would have grown by all of their bodies at least.
    assert grown < later_bodies


_WELL = {
    **dict.fromkeys(("loaded", "rows", "different_users", "ledger_rows"), 100),
    **dict.fromkeys(("left_on_queue", "on_dead_letter_queue", "runs_failed", "exit_code"), 0),
    "runs": 20,
    "runs_needed": 10,
}


def test_nothing_is_amiss_with_an_account_in_which_every_message_is_there_once() -> None:
    assert amiss(_WELL, 100) == []


@pytest.mark.parametrize("name", [name for name in _WELL if name != "runs_needed"])
@pytest.mark.parametrize("off", [1, 7])
def test_each_number_that_is_off_is_named(name: str, off: int) -> None:
    [said] = amiss(_WELL | {name: _WELL[name] + off}, 100)
    assert said.startswith(f"{name} is {_WELL[name] + off} and must be {_WELL[name]}")


def _load(directory: Path, *options: str) -> dict[str, float]:
    done = subprocess.run(  # noqa: S603 (our own module, no shell)
        [
            sys.executable,
            "-m",
            "benchmarks.load",
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
