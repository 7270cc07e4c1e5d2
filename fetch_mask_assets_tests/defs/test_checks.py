"""The checks: red when broken, a warning beyond its limit, and what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from dagster import AssetCheckSeverity

from fetch_mask_assets.pipeline.warehouse import commit
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit
from fetch_mask_assets_tests.defs.conftest import checks
from fetch_mask_assets_tests.support.logins import bodies, body

if TYPE_CHECKING:
    from fetch_mask_assets.pipeline.batch.balance import Balance
    from fetch_mask_assets_tests.defs.conftest import Pipeline

CANARY = "203.0.113.77"
BATCH = [*bodies(3), "not json"]


@pytest.mark.parametrize(
    "damage",
    [
        (
            "DELETE FROM login_ingest.ledger"
            " WHERE message_id = (SELECT min(message_id) FROM login_ingest.ledger)"
        ),
        "DELETE FROM login_ingest.quarantine",
        "DELETE FROM login_ingest.batch",
        "UPDATE login_ingest.batch SET received = received - 1, loaded = loaded - 1",
        "UPDATE login_ingest.batch SET quarantined = 0, loaded = loaded + 1",
    ],
    ids=[
        "a ledger line lost",
        "the quarantine lost",
        "no record",
        "a record of fewer messages",
        "a record that counts rejects as rows",
    ],
)
def test_a_balance_that_does_not_hold_is_red_and_fails_the_run(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    pipeline.send(BATCH)
    commit_batch = commit.commit_batch

    def commit_and_damage(database_url: str, batch: BatchToCommit) -> Balance:
        balance = commit_batch(database_url, batch)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(damage.encode())
        return balance

    monkeypatch.setattr(commit, "commit_batch", commit_and_damage)
    result = pipeline.run(messages=4)
    check = checks(result)["balance_holds"]
    assert not check.passed
    assert check.severity is AssetCheckSeverity.ERROR
    assert "Stop the sensor" in (check.description or "")
    assert not result.success


def test_a_raw_value_in_the_table_is_red_and_is_not_shown(pipeline: Pipeline) -> None:
    with psycopg.connect(pipeline.database.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO user_logins (user_id, masked_ip, masked_device_id) VALUES ('u', %s, %s)",
            [CANARY, CANARY],
        )
    pipeline.send(bodies(1))
    result = pipeline.run(messages=1)
    check = checks(result)["masked_columns_are_tokens"]
    assert not check.passed
    assert check.metadata["violations"].value == 1
    assert CANARY not in repr(check)
    assert result.success


def test_a_text_with_the_prefix_of_a_token_that_is_none_is_red_at_night(
    pipeline: Pipeline,
) -> None:
    pipeline.send(bodies(1))
    batch = checks(pipeline.run(messages=1))
    assert "every_token_is_well_formed" not in batch
    assert checks(pipeline.run(job="check_tokens"))["every_token_is_well_formed"].passed
    with psycopg.connect(pipeline.database.url, autocommit=True) as connection:
        connection.execute("INSERT INTO user_logins (masked_ip) VALUES (%s)", [f"ip:{CANARY}"])

    check = checks(pipeline.run(job="check_tokens"))["every_token_is_well_formed"]

    assert not check.passed
    assert check.metadata["violations"].value == 1
    assert CANARY not in repr(check)


def test_every_check_is_green_over_a_normal_batch(pipeline: Pipeline) -> None:
    pipeline.send(bodies(3))
    evaluated = checks(pipeline.run(messages=3))
    assert {name for name, check in evaluated.items() if not check.passed} == set()
    assert len(evaluated) == 14
    assert all(check.description for check in evaluated.values())


@pytest.mark.parametrize(
    ("texts", "check_name", "value"),
    [
        ([*bodies(9), "not json"], "rejected_messages", 10.0),
        ([*bodies(3), body(4, app_version="beta")], "unparsed_versions", 25.0),
    ],
)
def test_a_measure_beyond_its_limit_warns_and_the_run_goes_on(
    pipeline: Pipeline, texts: list[str], check_name: str, value: float
) -> None:
    pipeline.send(texts)
    result = pipeline.run(messages=len(texts))
    assert result.success
    check = checks(result)[check_name]
    assert (check.passed, check.severity) == (False, AssetCheckSeverity.WARN)
    assert check.metadata["value"].value == value
    assert check.metadata["limit"].value == 5.0


@pytest.mark.parametrize(
    ("texts", "check_name", "setting"),
    [
        ([*bodies(9), "not json"], "rejected_messages", "LOGIN_WARN_REJECTED_PERCENT"),
        (
            [*bodies(3), *[body(4, app_version="beta")]],
            "unparsed_versions",
            "LOGIN_WARN_UNPARSED_VERSION_PERCENT",
        ),
    ],
)
def test_a_limit_can_be_set_and_a_value_at_its_limit_is_normal(
    pipeline: Pipeline, texts: list[str], check_name: str, setting: str
) -> None:
    pipeline.send(texts)
    limit = str(100 // len(texts))
    assert checks(pipeline.run(messages=len(texts), **{setting: limit}))[check_name].passed


def test_messages_that_were_received_before_warn(pipeline: Pipeline) -> None:
    pipeline.send(bodies(2))
    assert len(pipeline.receive(visibility=0)) == 2
    check = checks(pipeline.run(messages=2))["redelivered_messages"]
    assert (check.passed, check.severity) == (False, AssetCheckSeverity.WARN)
    assert check.metadata["value"].value == 100.0


def test_messages_that_waited_long_warn(pipeline: Pipeline) -> None:
    pipeline.send(bodies(1))
    pipeline.database.query("SELECT pg_sleep(1.2)")
    check = checks(pipeline.run(messages=1, LOGIN_WARN_OLDEST_AGE_SECONDS="1"))[
        "oldest_message_age"
    ]
    assert (check.passed, check.severity) == (False, AssetCheckSeverity.WARN)
