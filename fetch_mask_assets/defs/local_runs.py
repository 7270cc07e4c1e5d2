"""Runs that the command line executes in its own process, and orphaned ones among them.

Dagster does not monitor such a process. If it is killed, its run would stay active until the
maximum run time, block a place in the run queue, and keep the sensor from requesting others.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

HOST_TAG = "fetch_mask/host"
PROCESS_TAG = "fetch_mask/process"
STARTED_TAG = "fetch_mask/process_started"
"""A restarted container has the same host name, and often the same process ids."""
QUEUE_TAG = "fetch_mask/queue"
"""On runs that take messages from another queue than the login queue."""

UNFINISHED_STATUSES = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

_PROCESSES = Path("/proc")

# A process may be killed between making its run and starting it.
_ACTIVE = [
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


def fail_orphaned_runs(instance: DagsterInstance) -> int:
    """Fails the active runs of this host whose process no longer exists; returns their number."""
    own = RunsFilter(
        statuses=_ACTIVE,
        tags={HOST_TAG: socket.gethostname()},
    )
    orphaned = [run for run in instance.get_runs(own) if not _is_alive(run.tags)]
    for run in orphaned:
        _fail(instance, run)
    return len(orphaned)


def _fail(instance: DagsterInstance, run: DagsterRun) -> None:
    instance.report_run_failed(
        run,
        "The process of this run no longer exists. Messages that it had not committed return to the"
        " queue after the visibility timeout.",
    )


def _is_alive(tags: Mapping[str, str]) -> bool:
    try:
        pid = int(tags[PROCESS_TAG])
    except (KeyError, ValueError):
        return True
    return _is_running(pid) and not _was_reused(pid, tags.get(STARTED_TAG))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _was_reused(pid: int, started: str | None) -> bool:
    now = _started(pid)
    return None not in {started, now} and started != now


def _started(pid: int) -> str | None:
    """The start time of a process, in clock ticks since boot; None if the system has no /proc."""
    # Source: proc_pid_stat(5), field 22; the second is a name that may hold blanks and brackets.
    try:
        fields = (_PROCESSES / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[19].decode()
