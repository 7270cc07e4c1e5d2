"""The process of an ingestion is killed for real; nothing is lost and nothing loads twice."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.support import commands
from fetch_mask_assets_tests.support.held_table import held_logins, wait_for_copy
from fetch_mask_assets_tests.support.logins import body, send

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MESSAGES = 150
# Redelivery is quick, and batches are many, so that a kill falls into each part of one.
QUICK = {
    "LOGIN_VISIBILITY_SECONDS": "10",
    "LOGIN_BATCH_SECONDS": "5",
    "LOGIN_BATCH_MESSAGES": "30",
    "LOGIN_RECEIVE_WAIT_SECONDS": "1",
    "LOGIN_MAX_EMPTY_RECEIVES": "2",
}

STEPS = (
    "fetch_mask_assets.pipeline.queue.sqs.batch_requests.BatchRequests._failed",  # in the deletes
    "fetch_mask_assets.pipeline.queue.login_queue.LoginQueue.delete",  # between the commit and them
    "fetch_mask_assets.pipeline.warehouse.commit._insert_quarantine",  # late in the commit
    "fetch_mask_assets.pipeline.warehouse.commit._copy_logins",  # early in it
    "fetch_mask_assets.pipeline.batch.checked_batch.mask_batch",  # after receiving
    "fetch_mask_assets.defs.assets.require_ready",  # before it
)


@pytest.fixture
def settings(environment: dict[str, str], sqs: SQSClient, tmp_path: Path) -> dict[str, str]:
    """The test's own database and queue, whose messages may come as often as it takes."""
    url = environment["LOGIN_QUEUE_URL"]
    given = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]
    policy = {**json.loads(given["RedrivePolicy"]), "maxReceiveCount": 1_000}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    own = {name: text for name, text in environment.items() if not name.startswith("DAGSTER")}
    return {**own, **QUICK, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}


def test_kills_at_any_moment_lose_nothing_and_load_nothing_twice(
    settings: dict[str, str], sqs: SQSClient, tmp_path: Path
) -> None:
    chance = random.Random(4711)  # noqa: S311 (moments, not secrets)
    texts = [body(number) if number % 10 else f"junk {number}" for number in range(MESSAGES)]
    sent = send(sqs, settings["LOGIN_QUEUE_URL"], texts)
    database = LoginDatabase(settings["LOGIN_DATABASE_URL"])
    for _ in range(3):
        _kill_once_it_commits(settings, tmp_path, database, chance.uniform(0.0, 0.4))
    _ingest_until_dry(settings, tmp_path)
    _assert_all_arrived_once(database, sent)


def test_kills_at_every_step_of_a_run_lose_nothing_and_load_nothing_twice(
    settings: dict[str, str], sqs: SQSClient, tmp_path: Path
) -> None:
    database = LoginDatabase(settings["LOGIN_DATABASE_URL"])
    sent: list[str] = []
    for number, target in enumerate(STEPS):
        texts = [body(10 * number + line) for line in range(8)] + ["junk", "{}"]
        sent += send(sqs, settings["LOGIN_QUEUE_URL"], texts)
        _run_driver({**settings, "LOGIN_BATCH_MESSAGES": "10"}, tmp_path, target)
    committed = database.query("SELECT sum(received) FROM login_ingest.batch")
    # Only the kills in the deletes came after a commit.
    assert committed == [(20,)]
    balance = _ingest_until_dry(settings, tmp_path)
    assert balance["already_known"] >= 1
    _assert_all_arrived_once(database, sent)


def test_a_terminated_ingestion_hands_its_messages_back_and_says_that_it_failed(
    settings: dict[str, str], sqs: SQSClient, tmp_path: Path
) -> None:
    queue_url = settings["LOGIN_QUEUE_URL"]
    send(sqs, queue_url, [body(number) for number in range(5)])
    patient = {**settings, "LOGIN_VISIBILITY_SECONDS": "600", "LOGIN_BATCH_MESSAGES": "5"}
    with held_logins(settings["LOGIN_DATABASE_URL"]):
        process = _start(patient, tmp_path)
        try:
            wait_for_copy(settings["LOGIN_DATABASE_URL"], process, 120)
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) != 0
        finally:
            _end(process)
    # Ten minutes of visibility, but they are back within seconds.
    answer = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=10)
    assert len(answer.get("Messages", [])) == 5
    database = LoginDatabase(settings["LOGIN_DATABASE_URL"])
    assert database.query("SELECT count(*) FROM user_logins") == [(0,)]


def _run_driver(settings: dict[str, str], cwd: Path, target: str) -> None:
    """An ingestion that is killed when it calls the target."""
    done = commands.run("ingest", env=settings, cwd=cwd, prepare=commands.KilledAt(target))
    assert done.returncode == -signal.SIGKILL


def _kill_once_it_commits(
    settings: dict[str, str], cwd: Path, database: LoginDatabase, delay: float
) -> None:
    """Kills an ingestion a moment after it has committed a batch, or after it has ended."""
    before = database.query("SELECT count(*) FROM login_ingest.batch")
    process = _start(settings, cwd)
    try:
        while process.poll() is None:
            if database.query("SELECT count(*) FROM login_ingest.batch") != before:
                time.sleep(delay)
                break
            time.sleep(0.05)
    finally:
        _end(process)


def _ingest_until_dry(settings: dict[str, str], cwd: Path) -> dict[str, int]:
    done = commands.run("ingest", "--json", env=settings, cwd=cwd)
    assert done.returncode == 0, done.stderr
    balance: dict[str, int] = json.loads(done.stdout)
    return balance


def _assert_all_arrived_once(database: LoginDatabase, sent: list[str]) -> None:
    ledger = [id_ for (id_,) in database.query("SELECT message_id FROM login_ingest.ledger")]
    assert sorted(ledger) == sorted(sent)
    [(rows, users, quarantined)] = database.query(
        "SELECT (SELECT count(*) FROM user_logins),"
        " (SELECT count(DISTINCT user_id) FROM user_logins),"
        " (SELECT count(*) FROM login_ingest.quarantine)"
    )
    assert rows == users
    assert rows + quarantined == len(sent)
    [(loaded, rejected)] = database.query(
        "SELECT sum(loaded), sum(quarantined) FROM login_ingest.batch"
    )
    assert (loaded, rejected) == (rows, quarantined)


def _start(settings: dict[str, str], cwd: Path) -> commands.Command:
    return commands.start("ingest", env=settings, cwd=cwd)


def _end(process: commands.Command) -> None:
    process.kill()
    process.wait(30)
