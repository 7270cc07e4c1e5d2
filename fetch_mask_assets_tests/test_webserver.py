"""Dagster's real processes: webserver and daemon, asked through GraphQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fetch_mask_assets
from fetch_mask_assets.gateways.database import LoginDatabase
from fetch_mask_assets.local_stack import sqs as local_sqs
from fetch_mask_assets.local_stack import stack as local_stack
from fetch_mask_assets.local_stack.processes import family, stop
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets_tests.logins import body, send

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fetch_mask_assets.local_stack.stack import Stack

CHECKOUT = Path(fetch_mask_assets.__file__).parents[1]
CANARY_IP = "203.0.113.213"
CANARY_DEVICE = "canary-device-815"
SECONDS = 240

LOCATION = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "fetch_mask_assets.definitions",
}


@dataclass
class Webserver:
    """A running webserver, and everything that it has answered."""

    url: str
    stack: Stack
    answers: list[str] = field(default_factory=list)

    def ask(self, query: str, **variables: object) -> Any:  # noqa: ANN401 (GraphQL's data)
        """The data of a GraphQL answer."""
        request = urllib.request.Request(  # noqa: S310 (our own loopback URL)
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            text = answer.read().decode()
        self.answers.append(text)
        parsed = json.loads(text)
        assert "errors" not in parsed, text
        return parsed["data"]

    def launch(self, **selection: object) -> str:
        """Launches ingest_logins; the run's id."""
        selector = {**LOCATION, "pipelineName": "ingest_logins", **selection}
        params = {"selector": selector, "runConfigData": {}, "mode": "default"}
        launched = self.ask(_LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def status_at_the_end(self, run_id: str) -> str:
        """The status of a run once it has ended."""
        give_up = time.monotonic() + SECONDS
        while time.monotonic() < give_up:
            status = self.ask(_STATUS, runId=run_id)["runOrError"]["status"]
            if status in {"SUCCESS", "FAILURE", "CANCELED"}:
                return str(status)
            time.sleep(0.3)
        pytest.fail("the run did not end")


@pytest.fixture(scope="module")
def webserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webserver]:
    """Webserver and daemon on a stack of the module's own, with the checkout's workspace."""
    checkout = tmp_path_factory.mktemp("checkout")
    port = free_port()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        stack = local_stack.up(checkout)
        # A run that a crowded machine loses must not hold its messages for long.
        quick = {
            "LOGIN_EMPTY_ANSWERS": "2",
            "LOGIN_BATCH_SECONDS": "5",
            "LOGIN_VISIBILITY_SECONDS": "20",
        }
        settings = {**os.environ, **stack.environment, **quick}
        # In the stack's own directory: Dagster reads .env from where it is started.
        page = ["dagster-webserver", "--host", "127.0.0.1", "--port", str(port)]
        processes += [_start(page, settings, checkout)]
        processes += [_start(["dagster-daemon", "run"], settings, checkout)]
        server = Webserver(f"http://127.0.0.1:{port}", stack)
        _wait_until_it_answers(server, processes)
        yield server
    finally:
        for process in processes:
            _end(process)
        local_stack.down(checkout, delete=True)


@pytest.fixture(scope="module")
def finished_run(webserver: Webserver) -> str:
    """A run of four messages that has succeeded, launched as a person launches one."""
    stack = webserver.stack
    texts = [body(n, ip=CANARY_IP, device_id=CANARY_DEVICE) for n in range(3)]
    send(
        local_sqs.client(stack.state),
        stack.environment["LOGIN_QUEUE_URL"],
        [*texts, f"junk {CANARY_DEVICE}"],
    )
    run_id = webserver.launch()
    assert webserver.status_at_the_end(run_id) == "SUCCESS"
    return run_id


def test_the_definitions_load_from_the_workspace(webserver: Webserver) -> None:
    [entry] = webserver.ask(_WORKSPACE)["workspaceOrError"]["locationEntries"]
    location = entry["locationOrLoadError"]
    assert location["__typename"] == "RepositoryLocation", location
    [repository] = location["repositories"]
    assert {"ingest_logins", "prune_runs"} <= {job["name"] for job in repository["jobs"]}
    assert {node["assetKey"]["path"][0] for node in repository["assetNodes"]} == {
        "login_queue",
        "raw_login_batch",
        "masked_logins",
        "user_logins",
        "remasked_logins",
    }


@pytest.mark.usefixtures("finished_run")
def test_what_waited_is_in_the_table_once(webserver: Webserver) -> None:
    # The sensor may have asked for runs of its own; which run took a message is all the same.
    database = LoginDatabase(webserver.stack.environment["LOGIN_DATABASE_URL"])
    give_up = time.monotonic() + SECONDS
    counts: list[tuple[Any, ...]] = []
    while counts != [(3, 1)] and time.monotonic() < give_up:
        counts = database.query(
            "SELECT (SELECT count(*) FROM user_logins),"
            " (SELECT count(*) FROM login_ingest.quarantine)"
        )
    assert counts == [(3, 1)]


def test_the_checks_of_a_run_can_be_read(webserver: Webserver, finished_run: str) -> None:
    run = webserver.ask(_CHECKS, runId=finished_run)["runOrError"]
    results = {
        event["evaluation"]["checkName"]: event["evaluation"]["success"]
        for event in run["eventConnection"]["events"]
        if "evaluation" in event
    }
    assert all(results[name] for name in ("no_raw_value", "tokens_unmask", "balance_holds"))


@pytest.mark.usefixtures("finished_run")
def test_the_sensor_ticks(webserver: Webserver) -> None:
    give_up = time.monotonic() + SECONDS
    ticks: list[dict[str, Any]] = []
    while not ticks and time.monotonic() < give_up:
        sensor = webserver.ask(_TICKS, sensor={**LOCATION, "sensorName": "login_queue_depth"})
        ticks = [
            tick
            for tick in sensor["sensorOrError"]["sensorState"]["ticks"]
            if tick["status"] in {"SKIPPED", "SUCCESS", "FAILURE"}
        ]
        time.sleep(0.2)
    assert {tick["status"] for tick in ticks} <= {"SKIPPED", "SUCCESS"}, ticks


def test_a_part_of_the_chain_launched_from_the_page_says_why_it_cannot_be(
    webserver: Webserver,
) -> None:
    run_id = webserver.launch(assetSelection=[{"path": ["user_logins"]}], assetCheckSelection=[])
    assert webserver.status_at_the_end(run_id) == "FAILURE"
    webserver.ask(_EVENTS, runId=run_id)
    assert "A batch lives only inside the run that received it" in webserver.answers[-1]


def test_no_answer_holds_a_raw_value_or_a_secret(webserver: Webserver, finished_run: str) -> None:
    webserver.ask(_EVENTS, runId=finished_run)
    assert "masked_logins" in webserver.answers[-1]
    text = "".join(webserver.answers)
    assert CANARY_IP not in text
    assert CANARY_DEVICE not in text
    assert webserver.stack.state.postgres_password not in text


_WORKSPACE = """
{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
    __typename
    ... on PythonError { message }
    ... on RepositoryLocation { repositories {
        jobs { name } assetNodes { assetKey { path } } } }
} } } } }
"""

_LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } }
} }
"""

_STATUS = "query ($runId: ID!) { runOrError(runId: $runId) { ... on Run { status } } }"

_CHECKS = """
query ($runId: ID!) { runOrError(runId: $runId) { ... on Run {
    eventConnection { events {
        ... on AssetCheckEvaluationEvent { evaluation { checkName success } } } }
} } }
"""

_TICKS = """
query ($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) {
    ... on Sensor { sensorState { ticks(limit: 20) { status skipReason error { message } } } }
} }
"""

_EVENTS = """
query ($runId: ID!) { runOrError(runId: $runId) { ... on Run {
    runConfigYaml tags { key value }
    eventConnection { events {
        __typename
        ... on MessageEvent { message }
        ... on ExecutionStepFailureEvent { error { message stack cause { message stack } } }
        ... on MaterializationEvent { assetKey { path } metadataEntries { label description
            ... on TextMetadataEntry { text } ... on JsonMetadataEntry { jsonString }
            ... on TableMetadataEntry { table { records } } } }
        ... on AssetCheckEvaluationEvent { evaluation { checkName description success
            metadataEntries { label description } } }
    } }
} } }
"""


def _start(command: list[str], settings: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    program = str(Path(sys.executable).parent / command[0])
    return subprocess.Popen(  # noqa: S603 (our own program, no shell)
        [program, *command[1:], "-w", str(CHECKOUT / "workspace.yaml")],
        env=settings,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait_until_it_answers(server: Webserver, processes: list[subprocess.Popen[bytes]]) -> None:
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        assert [process.poll() for process in processes] == [None] * len(processes)
        try:
            server.ask("{ version }")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return
    pytest.fail("the webserver does not answer")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it started, and nothing else."""
    known = family(process.pid)
    stop(known, ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)))
    process.wait(10)
