"""The nightly jobs delete data older than its setting and check every token."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from dagster import DagsterInstance, Definitions, build_schedule_context

from fetch_mask_assets.defs.operations.upkeep import (
    EXPIRE_QUARANTINE,
    PRUNE_LEDGER,
    expire_quarantine,
    ledger_schedule,
    prune_ledger,
    retention_schedule,
)
from fetch_mask_assets.defs.resources import LoginDatabaseResource
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.operations.quarantine.messages import QuarantineBalance
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets_tests.support.logins import masked_batch, register
from fetch_mask_assets_tests.support.people import person

if TYPE_CHECKING:
    from pathlib import Path


def test_the_schedule_passes_the_setting_to_the_job() -> None:
    schedule = retention_schedule(90)

    config = {"ops": {"delete_expired_messages": {"config": {"keep_days": 90}}}}
    assert schedule.job.name == EXPIRE_QUARANTINE
    with DagsterInstance.ephemeral() as instance:
        tick = schedule.evaluate_tick(build_schedule_context(instance))
    assert [request.run_config for request in tick.run_requests or ()] == [config]


def test_a_member_of_recovery_deletes_expired_messages_and_keeps_others(
    database_url: str, keysets_directory: Path
) -> None:
    _quarantine(database_url, keysets_directory, 3)
    _age(database_url)
    _quarantine(database_url, keysets_directory, 2)
    with person(database_url, "login_ingest_recovery") as steward:
        assert _runs(steward.url, keep_days=30)
        assert _runs(steward.url, keep_days=30)

    balance = Quarantine(database_url).balance()
    assert balance == QuarantineBalance(5, 0, 0, 3, 0, 2, is_balanced=True)


@pytest.mark.parametrize("keep_days", [0, -1])
def test_less_than_a_day_is_refused(keep_days: int, database_url: str) -> None:
    assert not _runs(database_url, keep_days=keep_days)


def test_a_database_that_is_down_fails_the_run() -> None:
    assert not _runs("postgresql://127.0.0.1:1/x", keep_days=30)


def _runs(url: str, *, keep_days: int) -> bool:
    """Return whether a run of the job succeeds."""
    definitions = Definitions(
        jobs=[expire_quarantine], resources={"recovery_database": LoginDatabaseResource(url=url)}
    )
    config = {"ops": {"delete_expired_messages": {"config": {"keep_days": keep_days}}}}
    with DagsterInstance.ephemeral() as instance:
        try:
            result = definitions.resolve_job_def(EXPIRE_QUARANTINE).execute_in_process(
                run_config=config, instance=instance, raise_on_error=False
            )
        except Exception:  # noqa: BLE001 (Dagster refuses the config before there is a run)
            return False
    return result.success


def _quarantine(url: str, keysets: Path, count: int) -> None:
    keyring = read_keyring(keysets)
    register(url, keyring)
    masked = masked_batch(keyring, ["junk"] * count)
    commit_batch(url, BatchToCommit(str(uuid4()), masked, lambda _id: b""))


def _age(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE login_ingest.quarantine SET quarantined_at = now() - interval '31 days'"
        )


def test_the_schedule_passes_the_days_of_the_ledger_to_the_job() -> None:
    schedule = ledger_schedule(18)

    assert schedule.job.name == PRUNE_LEDGER
    with DagsterInstance.ephemeral() as instance:
        tick = schedule.evaluate_tick(build_schedule_context(instance))
    config = {"ops": {"drop_old_days": {"config": {"keep_days": 18}}}}
    assert [request.run_config for request in tick.run_requests or ()] == [config]


@pytest.mark.parametrize(("keep_days", "is_dropped"), [(15, True), (18, False)])
def test_the_loader_prunes_the_ledger(
    database_url: str, keep_days: int, *, is_dropped: bool
) -> None:
    day = (datetime.now(UTC) - timedelta(days=17)).date()
    name = f"login_ingest.ledger_{day:%Y_%m_%d}"
    with psycopg.connect(database_url) as connection:
        connection.execute("SET ROLE login_ingest_owner")
        connection.execute(
            f"CREATE TABLE {name} PARTITION OF login_ingest.ledger FOR VALUES"
            f" FROM ('{day} 00:00+00') TO ('{day + timedelta(days=1)} 00:00+00')".encode()
        )
    with person(database_url, "login_ingest_loader") as loader:
        assert _prunes(loader.url, keep_days)
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT to_regclass(%s) IS NULL", [name]).fetchall()
    assert found == [(is_dropped,)]


def test_a_ledger_of_less_than_the_life_of_a_message_is_refused(database_url: str) -> None:
    assert not _prunes(database_url, keep_days=14)


def _prunes(url: str, keep_days: int) -> bool:
    definitions = Definitions(
        jobs=[prune_ledger], resources={"login_database": LoginDatabaseResource(url=url)}
    )
    config = {"ops": {"drop_old_days": {"config": {"keep_days": keep_days}}}}
    with DagsterInstance.ephemeral() as instance:
        try:
            result = definitions.resolve_job_def(PRUNE_LEDGER).execute_in_process(
                run_config=config, instance=instance, raise_on_error=False
            )
        except Exception:  # noqa: BLE001 (Dagster refuses the config before there is a run)
            return False
    return result.success
