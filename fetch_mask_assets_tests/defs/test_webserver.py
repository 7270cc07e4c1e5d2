"""Dagster's real processes: webserver and daemon, asked through GraphQL."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from fetch_mask_assets.local_stack import sqs as local_sqs
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.support.logins import body, send
from fetch_mask_assets_tests.support.webserver import LOCATION, SECONDS, Webserver, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]
CANARY_IP = "203.0.113.213"
CANARY_DEVICE = "canary-device-815"


@pytest.fixture(scope="module")
def webserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webserver]:
    """Webserver and daemon on a stack of the module's own."""
    with serving(tmp_path_factory.mktemp("checkout")) as server:
        yield server


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
        "readable_logins",
        "repeated_devices",
        "repeated_ips",
        "users_sharing_devices",
        "privacy_report",
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
    assert all(
        results[name] for name in ("no_raw_value", "tokens_can_be_unmasked", "balance_holds")
    )


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
