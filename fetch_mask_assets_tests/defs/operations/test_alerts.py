"""The alert sensor, in a real instance after real runs, with a real receiver."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from dagster import SensorDefinition, SkipReason, build_sensor_context

from fetch_mask_assets.errors import AlertError
from fetch_mask_assets_tests.support.factories import shown
from fetch_mask_assets_tests.support.logins import bodies, body
from fetch_mask_assets_tests.support.receiver import SECRET, Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetch_mask_assets_tests.defs.conftest import Pipeline

CANARY_IP = "203.0.113.88"
CANARY_DEVICE = "canary-device-88"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver that the settings point to."""
    with receiving() as server:
        monkeypatch.setenv("LOGIN_ALERT_WEBHOOK", server.url)
        yield server


def test_a_failed_check_alerts_though_the_run_is_green(
    pipeline: Pipeline, receiver: Receiver
) -> None:
    assert _tick(pipeline).startswith("Nothing new has failed")
    _insert_bare_row(pipeline)
    result = _run(pipeline)
    assert result.success

    assert _tick(pipeline) == "Sent 1 alerts to: log, webhook; 0 are pending for the next tick."

    [alert] = receiver.alerts
    assert alert["id"] == f"check:user_logins:masked_columns_are_tokens:{result.run_id}"
    assert alert["severity"] == "error"
    assert "committed, whole" in alert["impact"]
    assert "mask or remove them" in alert["remedy"]
    assert alert["numbers"]["violations"] == 1


def test_each_failure_of_a_check_is_reported_once_and_those_of_a_tick_in_one_alert(
    pipeline: Pipeline, receiver: Receiver
) -> None:
    _tick(pipeline)
    _insert_bare_row(pipeline)
    runs = [_run(pipeline).run_id for _ in range(3)]
    _tick(pipeline)
    runs.append(_run(pipeline).run_id)
    _tick(pipeline)
    _execute(pipeline, "DELETE FROM user_logins WHERE user_id = 'bare'")
    _run(pipeline)
    _tick(pipeline)

    several, one = receiver.alerts
    assert f"failed in 3 runs: {runs[2]}, {runs[1]}, {runs[0]}." in several["summary"]
    assert several["numbers"]["failures"] == 3
    assert one["id"] == f"check:user_logins:masked_columns_are_tokens:{runs[3]}"


def test_a_failed_run_alerts_once_and_states_that_nothing_was_committed(
    pipeline: Pipeline, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    _tick(pipeline)
    pipeline.send([body(1, ip=CANARY_IP, device_id=CANARY_DEVICE)])
    # A trigger's text would quote the row; neither the alert nor the log may.
    _execute(pipeline, "ALTER TABLE login_ingest.ledger RENAME TO ledger_away")
    result = pipeline.run(messages=1)
    _execute(pipeline, "ALTER TABLE login_ingest.ledger_away RENAME TO ledger")
    assert not result.success
    caplog.set_level(logging.INFO)

    _tick(pipeline)
    _tick(pipeline)

    runs = [each for each in receiver.alerts if each["id"].startswith("run:")]
    assert [each["run_id"] for each in runs] == [result.run_id]
    assert "No batch of this run is committed" in runs[0]["impact"]
    for canary in (CANARY_IP, CANARY_DEVICE, SECRET):
        assert canary not in f"{receiver.alerts}{caplog.text}"
    assert result.run_id in caplog.text


def test_a_failed_run_of_a_job_that_takes_no_messages_loses_none(
    pipeline: Pipeline, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tick(pipeline)
    monkeypatch.setenv("MASKING_KEYSETS", "/nowhere")
    result = pipeline.run(job="remask_logins")
    assert not result.success

    _tick(pipeline)

    [alert] = [each for each in receiver.alerts if each["id"] == f"run:{result.run_id}"]
    assert "No message is lost" in alert["impact"]


def test_a_webhook_that_is_down_fails_the_tick_and_the_alert_arrives_later_once(
    pipeline: Pipeline, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    _tick(pipeline)
    _insert_bare_row(pipeline)
    _run(pipeline)
    receiver.statuses = [503] * 6
    for _ in range(2):
        with pytest.raises(AlertError, match="1 of 1 alerts did not arrive everywhere") as caught:
            _tick(pipeline)
        assert SECRET not in shown(caught.value)
    assert receiver.requests == 6

    _tick(pipeline)
    _tick(pipeline)

    assert len(receiver.alerts) == 1


def test_a_table_that_is_stale_alerts_once_until_something_is_loaded(
    pipeline: Pipeline, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.send(bodies(1))
    pipeline.run(messages=1)
    _tick(pipeline)
    later = time.time() + 3_700
    monkeypatch.setattr("fetch_mask_assets.defs.operations.alerts.time.time", lambda: later)
    _tick(pipeline)
    assert receiver.alerts == []  # the queue is empty

    pipeline.send(bodies(3))
    _tick(pipeline)
    _tick(pipeline)

    [alert] = receiver.alerts
    assert alert["id"].startswith("freshness:user_logins:")
    assert alert["numbers"]["waiting"] == 3
    assert "Nothing is lost" in alert["impact"]


def test_a_table_that_was_never_loaded_becomes_stale_as_well(
    pipeline: Pipeline, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.send(bodies(1))
    _tick(pipeline)
    assert receiver.alerts == []
    later = time.time() + 3_700
    monkeypatch.setattr("fetch_mask_assets.defs.operations.alerts.time.time", lambda: later)

    _tick(pipeline)

    assert len(receiver.alerts) == 1


def test_a_database_that_is_down_does_not_keep_an_alert_back(
    pipeline: Pipeline, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tick(pipeline)
    _insert_bare_row(pipeline)
    _run(pipeline)
    monkeypatch.setenv("LOGIN_DATABASE_URL", "postgresql://127.0.0.1:1/x")

    _tick(pipeline)

    [alert] = receiver.alerts
    assert "database is unreachable" in alert["impact"]


def _run(pipeline: Pipeline):  # type: ignore[no-untyped-def]  # noqa: ANN202 (Dagster's own result)
    pipeline.send(bodies(1))
    return pipeline.run(messages=1)


def _tick(pipeline: Pipeline) -> str:
    definitions = pipeline.definitions(
        **{name: value for name, value in os.environ.items() if name.startswith("LOGIN_ALERT")}
    )
    sensor: SensorDefinition = definitions.resolve_sensor_def("alerts")
    names = ("login_queue", "login_database", "alert_destinations")
    resources = definitions.resources or {}
    with build_sensor_context(
        instance=pipeline.instance, resources={name: resources[name] for name in names}
    ) as context:
        outcome = sensor(context)
    assert isinstance(outcome, SkipReason)
    return outcome.skip_message or ""


def _insert_bare_row(pipeline: Pipeline) -> None:
    _execute(
        pipeline,
        "INSERT INTO user_logins (user_id, masked_ip) VALUES ('bare', 'neither a token')",
    )


def _execute(pipeline: Pipeline, statement: str) -> None:
    with psycopg.connect(pipeline.database.url, autocommit=True) as connection:
        connection.execute(statement.encode())
