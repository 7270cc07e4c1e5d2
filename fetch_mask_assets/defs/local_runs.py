"""Runs that the command line executes in its own process, and their end when that was killed.

Nothing watches such a process: its run would count as under way until the longest run time is over,
hold a place in the run queue, and keep the sensor from asking for others.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

HOST_TAG = "fetch_mask/host"
PROCESS_TAG = "fetch_mask/process"
STARTED_TAG = "fetch_mask/process_started"
"""A restarted container has its host name, and often its process ids, again."""
QUEUE_TAG = "fetch_mask/queue"
"""On runs that take messages from another queue than the login queue."""

_PROCESSES = Path("/proc")

# A process may be killed between making its run and starting it.
_UNDER_WAY = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def own_process_tags() -> dict[str, str]:
    """The tags of a run that this process executes."""
    pid = os.getpid()
    started = _started(pid)
    return {
        HOST_TAG: socket.gethostname(),
        PROCESS_TAG: str(pid),
        **({STARTED_TAG: started} if started else {}),
    }


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
        pid = int(tags[PROCESS_TAG])
    except (KeyError, ValueError):
        return True
    return _is_running(pid) and not _is_another(pid, tags.get(STARTED_TAG))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_another(pid: int, started: str | None) -> bool:
    now = _started(pid)
    return None not in {started, now} and started != now


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks of the machine; None where the system does not say."""
    # Source: proc_pid_stat(5), field 22; the second is a name that may hold blanks and brackets.
    try:
        fields = (_PROCESSES / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[19].decode()
