"""A backlog in one go: the sensor in charge, several runs at once, under a memory limit.

Sends messages to a queue that hands them out as fast as it is asked, starts `dagster dev`
(webserver, daemon, run queue) on a stack of its own in a temporary directory, and waits for the
last message. Then prints what became of them, how many runs it took, what each held of memory at
its peak, and what deleting the runs leaves in Dagster's storage. Run it with `make load`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import psycopg
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, RunsFilter

from benchmarks.sqs_simulator.harsh_queue import HarshQueue
from fetch_mask_assets.defs.jobs import INGEST_LOGINS, prune_runs
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.local_stack import stack as local_stack
from fetch_mask_assets.local_stack.dev import dagster_dev, free_ui_port
from fetch_mask_assets.local_stack.environment import DAGSTER, LOGINS
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets.pipeline.queue.process_limits import disable_core_dumps
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase

_QUEUE = "logins"
_CHECKOUT = Path(__file__).parents[1]
_MEGABYTE = 2**20
_GIVE_UP_SECONDS = 1_800
_MAX_RUNS_TO_NEEDED = 2
_RUNNING = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]
_UNDER_WAY = [DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED, *_RUNNING]


@dataclass(frozen=True)
class Load:
    """The number of messages, their size, and the limits of the runs."""

    messages: int
    batch: int
    runs: int
    memory_megabytes: int
    body_bytes: int
    """Shorter bodies are filled up with blanks."""


@dataclass
class Peaks:
    """The largest resident memory of each run's process so far, in bytes, by process id."""

    by_pid: dict[int, int] = field(default_factory=dict)

    def look(self, leader: psutil.Process) -> None:
        """Reads the peaks that the kernel keeps. Source: proc_pid_status(5), VmHWM."""
        for child in leader.children(recursive=True):
            try:
                if any("spawn_main" in word for word in child.cmdline()):
                    self.by_pid[child.pid] = _high_water_mark(child.pid)
            except (psutil.Error, OSError, StopIteration):
                continue

    def as_account(self) -> dict[str, float]:
        """The peaks of memory of the runs, and the largest in comparison with the median."""
        held = sorted(self.by_pid.values())
        return {
            "processes_watched": len(held),
            "smallest_peak_megabytes": held[0] // _MEGABYTE,
            "median_peak_megabytes": int(median(held)) // _MEGABYTE,
            "largest_peak_megabytes": held[-1] // _MEGABYTE,
            "largest_peak_to_median": round(held[-1] / median(held), 2),
        }


def _body(number: int) -> str:
    """A login event of a user and a device that no other number has."""
    login = {
        "user_id": f"user-{number}",
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": f"192.0.2.{number % 200}",
        "locale": "en_US",
        "device_id": f"device-{number:08}",
    }
    return json.dumps(login)


def _high_water_mark(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> int:
    """Runs the load and prints its account; 1 if something of it is not as it must be."""
    load, as_json, one_process = _asked()
    disable_core_dumps()
    limit = load.memory_megabytes * _MEGABYTE
    # Inherited by every process that is started here: webserver, daemon, code server, runs.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with (
        tempfile.TemporaryDirectory() as place,
        HarshQueue() as queue,
        _stack(Path(place), queue, load) as stack,
    ):
        if one_process:
            account = _ingested(stack, queue, load)
        else:
            account = _drained(stack, queue, load)
            account |= _pruned(stack)
    print(json.dumps(account) if as_json else "\n".join(_lines(account)))
    wrong = amiss(account, load.messages)
    print("".join(f"Not as it must be: {each}\n" for each in wrong), end="", file=sys.stderr)
    return 1 if wrong else 0


def amiss(account: Mapping[str, float], messages: int) -> list[str]:
    """The measured figures of an account that are not as they must be."""
    must_be = {
        **dict.fromkeys(("loaded", "rows", "different_users", "ledger_rows"), messages),
        **dict.fromkeys(("left_on_queue", "on_dead_letter_queue", "runs_failed", "exit_code"), 0),
    }
    others = [
        f"{name} is {account[name]:,} and must be {number:,}"
        for name, number in must_be.items()
        if account.get(name, number) != number
    ]
    runs, most = account.get("runs", 0), _MAX_RUNS_TO_NEEDED * account.get("runs_needed", 0)
    storm = [f"runs is {runs:,} and must be {most:,} at most"] if runs > most else []
    return [*others, *storm]


def _asked() -> tuple[Load, bool, bool]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=2, help="runs at once")
    parser.add_argument("--memory", type=int, default=1_024, help="megabytes for each process")
    parser.add_argument("--one-process", action="store_true", help="`ingest`, without the sensor")
    parser.add_argument("--body-bytes", type=int, default=0, help="least size of a message")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    load = Load(given.messages, given.batch, given.runs, given.memory, given.body_bytes)
    return load, given.json, given.one_process


@contextmanager
def _stack(place: Path, queue: HarshQueue, load: Load) -> Iterator[Stack]:
    """A stack whose settings lead to the queue with the backlog."""
    shutil.copy(_CHECKOUT / "workspace.yaml", place)
    os.environ["PYTHONPATH"] = str(_CHECKOUT)
    try:
        stack = local_stack.up(place)
        queue.create(_QUEUE, dead_letters="dead-letters")
        bodies = (_body(number).ljust(load.body_bytes) for number in range(load.messages))
        queue.send(_QUEUE, bodies)
        settings = queue.environment(_QUEUE) | {
            "LOGIN_BATCH_MESSAGES": str(load.batch),
            "LOGIN_BATCH_SECONDS": "30",
            "LOGIN_VISIBILITY_SECONDS": "300",
            "LOGIN_MAX_RUNS": str(load.runs),
        }
        with stack.layout.dotenv.open("a", encoding="utf-8") as dotenv:
            dotenv.writelines(f"{name}={value}\n" for name, value in settings.items())
        os.environ |= {**stack.environment, **settings}
        yield stack
    finally:
        local_stack.down(place, delete=True)


def _drained(stack: Stack, queue: HarshQueue, load: Load) -> dict[str, float]:
    """Lets the sensor drain the queue; what came of it."""
    peaks, at_once = Peaks(), 0
    started = time.monotonic()
    with dagster_dev(stack, free_ui_port()) as process, DagsterInstance.get() as instance:
        leader = psutil.Process(process.pid)

        def is_done() -> bool:
            nonlocal at_once
            peaks.look(leader)
            running = instance.get_runs_count(RunsFilter(statuses=_UNDER_WAY))
            at_once = max(at_once, instance.get_runs_count(RunsFilter(statuses=_RUNNING)))
            return queue.counts(_QUEUE).all == 0 and running == 0

        _wait(is_done, process.poll)
    seconds = time.monotonic() - started
    return {
        "sent": load.messages,
        "left_on_queue": queue.counts(_QUEUE).all,
        "on_dead_letter_queue": queue.counts("dead-letters").all,
        "seconds": round(seconds),
        "messages_per_second": round(load.messages / seconds),
        **_table(stack),
        **_runs(load),
        "most_runs_at_once": at_once,
        "memory_limit_megabytes": load.memory_megabytes,
        **peaks.as_account(),
    }


def _wait(is_done: Callable[[], bool], ended: Callable[[], int | None]) -> None:
    give_up = time.monotonic() + _GIVE_UP_SECONDS
    while not is_done():
        if ended() is not None or time.monotonic() > give_up:
            raise SystemExit("the queue was not drained: dagster dev ended, or time is over.")
        time.sleep(0.5)


def _ingested(stack: Stack, queue: HarshQueue, load: Load) -> dict[str, float]:
    """Drains the queue in one process, batch after batch; what that held after each."""
    command = [str(Path(sys.executable).parent / "fetch-mask"), "ingest", "--json"]
    database = LoginDatabase(postgres.url(stack.state, LOGINS))
    held: dict[int, int] = {}
    with psutil.Popen(command, cwd=stack.layout.checkout, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            [(batches,)] = database.query("SELECT count(*) FROM login_ingest.batch")
            with contextlib.suppress(psutil.Error, OSError, StopIteration):
                held[int(batches)] = _high_water_mark(process.pid)
            time.sleep(0.2)
    second = min((number for number in held if number > 1), default=0)
    return {
        "sent": load.messages,
        "exit_code": process.returncode,
        "left_on_queue": queue.counts(_QUEUE).all,
        "on_dead_letter_queue": queue.counts("dead-letters").all,
        **_table(stack),
        "batches": max(held),
        "memory_limit_megabytes": load.memory_megabytes,
        "peak_megabytes_to_the_second_batch": held[second] // _MEGABYTE,
        "peak_megabytes_to_the_last_batch": max(held.values()) // _MEGABYTE,
        "last_to_second": round(max(held.values()) / held[second], 2),
    }


def _table(stack: Stack) -> dict[str, int]:
    """The database's own counts."""
    database = LoginDatabase(postgres.url(stack.state, LOGINS))
    [counts] = database.query(
        "SELECT sum(received), sum(loaded), sum(quarantined), sum(already_known),"
        " (SELECT count(*) FROM user_logins),"
        " (SELECT count(DISTINCT user_id) FROM user_logins),"
        " (SELECT count(*) FROM login_ingest.ledger) FROM login_ingest.batch"
    )
    names = (
        "received",
        "loaded",
        "quarantined",
        "already_known",
        "rows",
        "different_users",
        "ledger_rows",
    )
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _runs(load: Load) -> dict[str, float]:
    """The number of runs, and the number that the backlog needed."""
    with DagsterInstance.get() as instance:
        runs = instance.get_runs_count(RunsFilter(job_name=INGEST_LOGINS))
        failed = instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.FAILURE]))
        causes = _causes(instance)
    needed = math.ceil(load.messages / load.batch)
    ratio = round(runs / needed, 2)
    account = {"runs": runs, "runs_failed": failed, "runs_needed": needed, "runs_to_needed": ratio}
    return account | causes


def _causes(instance: DagsterInstance) -> dict[str, float]:
    """Of the runs that failed, how many by which step and class of error; never a message."""
    failed = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.FAILURE]))
    return dict(Counter(f"failed by {_cause(instance, run.run_id)}" for run in failed))


def _cause(instance: DagsterInstance, run_id: str) -> str:
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE):
        event = entry.get_dagster_event()
        error = event.step_failure_data.error
        if error:
            root = error.cause or error
            return f"{root.cls_name} in {event.step_key}"
    entries = instance.all_logs(run_id, of_type=DagsterEventType.RUN_FAILURE)
    reasons = [entry.get_dagster_event().job_failure_data.failure_reason for entry in entries]
    return "no step, " + ", ".join(reason.name for reason in reasons if reason)


def _pruned(stack: Stack) -> dict[str, int]:
    """Makes all runs two days old, deletes those older than one; what is left in the storage."""
    storage = postgres.url(stack.state, DAGSTER)
    before = _stored(storage)
    with psycopg.connect(storage, autocommit=True) as connection:
        connection.execute("UPDATE runs SET update_timestamp = now() - interval '2 days'")
    config = {"ops": {"delete_old_runs": {"config": {"keep_days": 1}}}}
    with DagsterInstance.get() as instance:
        prune_runs.execute_in_process(instance=instance, run_config=config)
    after = _stored(storage)
    # The run that deletes is itself a run, with its events.
    return {
        "stored_runs_before_pruning": before[0],
        "stored_runs_after_pruning": after[0],
        "stored_events_before_pruning": before[1],
        "stored_events_after_pruning": after[1],
    }


def _stored(storage: str) -> tuple[int, int]:
    statement = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM event_logs)"
    with psycopg.connect(storage) as connection:
        [(runs, events)] = connection.execute(statement).fetchall()
    return int(runs), int(events)


def _lines(account: Mapping[str, float]) -> Iterator[str]:
    return (f"{name.replace('_', ' '):32} {number:12,}" for name, number in account.items())


if __name__ == "__main__":
    sys.exit(main())
