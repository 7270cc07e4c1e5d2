"""Runs that the command line executes in its own process, and their end when that was killed.

Nothing watches such a process: its run would count as under way until the longest run time is over,
hold a place in the run queue, and keep the sensor from asking for others.
"""

import os
import socket
from collections.abc import Mapping

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

HOST_TAG = "fetch_mask/host"
PROCESS_TAG = "fetch_mask/process"
QUEUE_TAG = "fetch_mask/queue"
"""On runs that take messages from another queue than the login queue."""

# A process may be killed between making its run and starting it.
_UNDER_WAY = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def own_process_tags() -> dict[str, str]:
    """The tags of a run that this process executes."""
    return {HOST_TAG: socket.gethostname(), PROCESS_TAG: str(os.getpid())}


def fail_dead_runs(instance: DagsterInstance) -> int:
    """Fails the runs of this host's command line whose process is gone; says how many."""
    own = RunsFilter(
        statuses=_UNDER_WAY,
        tags={HOST_TAG: socket.gethostname()},
    )
    dead = [run for run in instance.get_runs(own) if not _is_alive(run.tags)]
    for run in dead:
        _fail(instance, run)
    return len(dead)


def _fail(instance: DagsterInstance, run: DagsterRun) -> None:
    instance.report_run_failed(
        run, "The process of this run is gone. What it had not committed comes back by itself."
    )


def _is_alive(tags: Mapping[str, str]) -> bool:
    try:
        os.kill(int(tags[PROCESS_TAG]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, KeyError, ValueError):
        return True
    return True
