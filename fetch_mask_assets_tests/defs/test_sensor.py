"""The sensor: how many runs it asks for, when it does not, and what it says then."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterRun,
    DagsterRunStatus,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorResult,
    SkipReason,
    build_sensor_context,
)
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from fetch_mask_assets.defs.local_runs import HOST_TAG, PROCESS_TAG, STARTED_TAG, own_process_tags
from fetch_mask_assets.defs.sensor import REASON_TAG
from fetch_mask_assets.errors import QueueError
from fetch_mask_assets_tests.support.logins import bodies

if TYPE_CHECKING:
    from fetch_mask_assets_tests.defs.conftest import Pipeline


@pytest.mark.parametrize(("waiting", "runs"), [(1, 1), (10, 1), (11, 2), (25, 3), (45, 4)])
def test_as_many_runs_are_asked_for_as_the_backlog_fills_up_to_the_cap(
    pipeline: Pipeline, waiting: int, runs: int
) -> None:
    pipeline.send(bodies(waiting))
    requests = _requests(_tick(pipeline))
    assert len(requests) == runs
    # A run key would deduplicate for ever.
    assert {request.run_key for request in requests} == {None}
    assert all(f"{waiting} messages are waiting" in each.tags[REASON_TAG] for each in requests)


def test_an_empty_queue_asks_for_no_run_and_says_so(pipeline: Pipeline) -> None:
    assert _says(_tick(pipeline)) == (
        "No message is waiting, so no run is needed: 0 messages are in flight, 0 of at most 4 runs"
        " are active."
    )


@pytest.mark.parametrize(
    "status",
    [
        DagsterRunStatus.QUEUED,
        DagsterRunStatus.NOT_STARTED,
        DagsterRunStatus.STARTING,
        DagsterRunStatus.STARTED,
        DagsterRunStatus.CANCELING,
    ],
)
@pytest.mark.parametrize("job", ["ingest_logins", "__ASSET_JOB"])
def test_runs_under_way_are_not_asked_for_again(
    pipeline: Pipeline, status: DagsterRunStatus, job: str
) -> None:
    pipeline.send(bodies(25))
    _add_runs(pipeline, job, [status, status])
    assert len(_requests(_tick(pipeline))) == 1
    _add_runs(pipeline, job, [status])
    description = _says(_tick(pipeline))
    assert "25 messages are waiting, and the active runs take them" in description
    assert description.endswith("3 of at most 4 runs are active.")


def test_runs_that_ended_and_runs_of_other_jobs_do_not_count(pipeline: Pipeline) -> None:
    pipeline.send(bodies(5))
    ended = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
    _add_runs(pipeline, "ingest_logins", ended)
    _add_runs(pipeline, "prune_runs", [DagsterRunStatus.STARTED])
    assert len(_requests(_tick(pipeline))) == 1


@pytest.mark.parametrize(
    "status", [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]
)
def test_a_run_of_the_command_line_that_was_killed_is_failed_and_does_not_count(
    pipeline: Pipeline, status: DagsterRunStatus
) -> None:
    pipeline.send(bodies(5))
    dead = subprocess.Popen(["true"])  # noqa: S607 (any program that ends at once)
    dead.wait()
    killed = {HOST_TAG: socket.gethostname(), PROCESS_TAG: str(dead.pid)}
    alive = own_process_tags()
    elsewhere = {HOST_TAG: "another-host", PROCESS_TAG: str(dead.pid)}
    _add_runs(pipeline, "ingest_logins", [status], killed)

    assert len(_requests(_tick(pipeline))) == 1

    [run] = pipeline.instance.get_runs(RunsFilter(tags=killed))
    assert run.status is DagsterRunStatus.FAILURE
    for tags in (alive, elsewhere):
        _add_runs(pipeline, "ingest_logins", [DagsterRunStatus.STARTED], tags)
        assert "are active" in _says(_tick(pipeline))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux says when one started")
def test_a_run_whose_process_id_another_process_has_now_is_failed_and_does_not_count(
    pipeline: Pipeline,
) -> None:
    pipeline.send(bodies(5))
    restarted = {**own_process_tags(), STARTED_TAG: "1"}
    _add_runs(pipeline, "ingest_logins", [DagsterRunStatus.STARTED], restarted)

    assert len(_requests(_tick(pipeline))) == 1

    [run] = pipeline.instance.get_runs(RunsFilter(tags=restarted))
    assert run.status is DagsterRunStatus.FAILURE


def test_a_run_that_does_not_say_when_its_process_started_is_told_by_its_id(
    pipeline: Pipeline,
) -> None:
    pipeline.send(bodies(5))
    unsaid = {HOST_TAG: socket.gethostname(), PROCESS_TAG: str(os.getpid())}
    _add_runs(pipeline, "ingest_logins", [DagsterRunStatus.STARTED], unsaid)

    assert "are active" in _says(_tick(pipeline))


def test_where_the_system_does_not_say_when_a_process_started_its_id_tells(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.send(bodies(5))
    said = {**own_process_tags(), STARTED_TAG: "1"}
    monkeypatch.setattr("fetch_mask_assets.defs.local_runs._PROCESSES", Path("/nowhere"))
    assert STARTED_TAG not in own_process_tags()
    _add_runs(pipeline, "ingest_logins", [DagsterRunStatus.STARTED], said)

    assert "are active" in _says(_tick(pipeline))


def test_a_run_that_started_before_its_messages_came_back_does_not_count(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.send(bodies(5))
    _add_runs(pipeline, "ingest_logins", [DagsterRunStatus.NOT_STARTED])
    [run] = pipeline.instance.get_runs(
        RunsFilter(job_name="ingest_logins", statuses=[DagsterRunStatus.NOT_STARTED])
    )
    pipeline.instance.report_dagster_event(
        DagsterEvent(DagsterEventType.RUN_START.value, "ingest_logins"), run.run_id
    )
    assert "are active" in _says(_tick(pipeline))

    later = time.time() + 24 * 3_600
    monkeypatch.setattr("fetch_mask_assets.defs.sensor.time.time", lambda: later)

    assert len(_requests(_tick(pipeline))) == 1


def test_a_dry_queue_is_looked_at_before_the_table_counts_as_stale(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add_runs(pipeline, "ingest_logins", [DagsterRunStatus.SUCCESS])
    assert "so no run is needed" in _says(_tick(pipeline))

    later = time.time() + 1_860
    monkeypatch.setattr("fetch_mask_assets.defs.sensor.time.time", lambda: later)

    [request] = _requests(_tick(pipeline))
    assert "the last run was requested 31 minutes ago" in request.tags[REASON_TAG]


def test_messages_in_flight_ask_for_no_run(pipeline: Pipeline) -> None:
    pipeline.send(bodies(3))
    pipeline.receive()
    assert _says(_tick(pipeline)) == (
        "No message is waiting, so no run is needed: 3 messages are in flight, 0 of at most 4 runs"
        " are active."
    )


def test_a_database_that_is_not_ready_skips_and_says_what_to_do(pipeline: Pipeline) -> None:
    pipeline.send(bodies(3))
    with psycopg.connect(pipeline.database.url, autocommit=True) as connection:
        connection.execute("DELETE FROM login_ingest.schema_version")
    description = _says(_tick(pipeline))
    assert description.startswith("Not ready, so no run was requested: ")
    assert "the database's schema is at revision none" in description
    assert description.endswith("run `fetch-mask migrate`.")


def test_keys_that_are_missing_skip_and_are_named(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.send(bodies(3))
    monkeypatch.setenv("MASKING_KEYSETS", "/nowhere")
    description = _says(_tick(pipeline))
    assert "there is no keyset at /nowhere/ip.json: check MASKING_KEYSETS" in description


def test_a_tick_receives_nothing(pipeline: Pipeline) -> None:
    pipeline.send(bodies(1))
    _tick(pipeline)
    [message] = pipeline.receive()
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_a_queue_that_is_not_there_fails_the_tick(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN_QUEUE_URL", f"{pipeline.queue_url}-missing")
    with pytest.raises(QueueError, match=r"NonExistentQueue.*LOGIN_QUEUE_URL"):
        _tick(pipeline)


def _tick(pipeline: Pipeline) -> object:
    definitions = pipeline.definitions(LOGIN_BATCH_MESSAGES="10", LOGIN_MAX_RUNS="4")
    sensor: SensorDefinition = definitions.resolve_sensor_def("login_queue_depth")
    names = ("login_queue", "login_database", "masking_keys")
    resources = definitions.resources or {}
    with build_sensor_context(
        instance=pipeline.instance, resources={name: resources[name] for name in names}
    ) as context:
        return sensor(context)


def _requests(outcome: object) -> list[RunRequest]:
    assert isinstance(outcome, SensorResult)
    return list(outcome.run_requests or [])


def _says(outcome: object) -> str:
    assert isinstance(outcome, SkipReason)
    return outcome.skip_message or ""


def _add_runs(
    pipeline: Pipeline,
    job: str,
    statuses: list[DagsterRunStatus],
    tags: dict[str, str] | None = None,
) -> None:
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__")
    for status in statuses:
        run = DagsterRun(
            job_name=job,
            run_id=str(uuid4()),
            status=status,
            tags=tags or {},
            remote_job_origin=RemoteJobOrigin(repository, job),
        )
        pipeline.instance.add_run(run)
