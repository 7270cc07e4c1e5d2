"""The dead-letter queue is shown without a value and drained exactly once, by real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.support import commands
from fetch_mask_assets_tests.support.logins import bodies, body, send

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_sqs import SQSClient

QUICK = {
    "LOGIN_VISIBILITY_SECONDS": "10",
    "LOGIN_BATCH_SECONDS": "5",
    "LOGIN_RECEIVE_WAIT_SECONDS": "1",
    "LOGIN_MAX_EMPTY_RECEIVES": "2",
}
CANARY = "203.0.113.77"


@dataclass(frozen=True)
class Place:
    """A login queue, its dead-letter queue, a database, and a shell that knows them."""

    sqs: SQSClient
    settings: Mapping[str, str]
    directory: Path

    @property
    def login_queue(self) -> str:
        """The URL of the login queue."""
        return self.settings["LOGIN_QUEUE_URL"]

    @property
    def dead_letter_queue(self) -> str:
        """The URL of the dead-letter queue."""
        return f"{self.login_queue}-dead-letter"

    @property
    def database(self) -> LoginDatabase:
        """The warehouse."""
        return LoginDatabase(self.settings["LOGIN_DATABASE_URL"])

    def run(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """A command, with some settings changed."""
        return commands.run(*arguments, env={**self.settings, **changes}, cwd=self.directory)

    def bury(self) -> None:
        """Receives what waits until SQS itself moves it to the dead-letter queue."""
        while self.sqs.receive_message(
            QueueUrl=self.login_queue, MaxNumberOfMessages=10, VisibilityTimeout=0
        ).get("Messages"):
            pass

    def die_after_commit(self) -> None:
        """An ingestion of ten messages that is killed between its commit and its deletes."""
        done = commands.run(
            "ingest",
            env={**self.settings, "LOGIN_BATCH_MESSAGES": "10"},
            cwd=self.directory,
            prepare=commands.KilledAt(
                "fetch_mask_assets.pipeline.queue.login_queue.LoginQueue.delete"
            ),
        )
        assert done.returncode == -signal.SIGKILL

    def set_receives(self, count: int) -> None:
        """Sets how often a message may be received."""
        given = self.sqs.get_queue_attributes(
            QueueUrl=self.login_queue, AttributeNames=["RedrivePolicy"]
        )["Attributes"]
        policy = {**json.loads(given["RedrivePolicy"]), "maxReceiveCount": count}
        self.sqs.set_queue_attributes(
            QueueUrl=self.login_queue, Attributes={"RedrivePolicy": json.dumps(policy)}
        )

    def buried(self) -> int:
        """How many messages are on the dead-letter queue, seen or hidden."""
        answer = self.sqs.get_queue_attributes(
            QueueUrl=self.dead_letter_queue, AttributeNames=["All"]
        )["Attributes"]
        return int(answer["ApproximateNumberOfMessages"]) + int(
            answer["ApproximateNumberOfMessagesNotVisible"]
        )

    def ledger(self) -> list[str]:
        """The message ids that are committed."""
        return sorted(
            id_ for (id_,) in self.database.query("SELECT message_id FROM login_ingest.ledger")
        )


@pytest.fixture
def place(environment: dict[str, str], sqs: SQSClient, tmp_path: Path) -> Place:
    """The test's own place, without DAGSTER_HOME."""
    own = {name: text for name, text in environment.items() if not name.startswith("DAGSTER")}
    return Place(sqs, {**own, **QUICK, "HOME": str(tmp_path)}, tmp_path)


def test_dead_letters_load_once_and_those_committed_before_are_recognised(place: Place) -> None:
    committed = send(place.sqs, place.login_queue, [*bodies(9), "not json"])
    place.die_after_commit()
    new = send(place.sqs, place.login_queue, [*bodies(30), "junk"])
    place.bury()
    give_up = time.monotonic() + 60
    while place.buried() < 41 and time.monotonic() < give_up:
        time.sleep(0.5)  # until what the killed process held is seen again
        place.bury()
    first = place.run("dead-letters", "drain", "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) == {
        "received": 41,
        "loaded": 30,
        "quarantined": 1,
        "already_known": 10,
        "batches": 1,
        "remaining": 0,
    }
    assert place.ledger() == sorted([*committed, *new])
    assert place.database.query("SELECT count(*) FROM user_logins") == [(39,)]
    assert place.buried() == 0


def test_show_tells_counts_ages_and_shapes_and_no_value_and_takes_nothing(place: Place) -> None:
    send(place.sqs, place.login_queue, [body(1, ip=CANARY), body(2, ip=CANARY), CANARY])
    place.bury()
    done = place.run("dead-letters", "show", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["waiting"], shown["sampled"]) == (3, 3)
    assert shown["oldest_sent_at"] <= shown["newest_sent_at"]
    assert sorted(shown["profiles"].values()) == [1, 2]
    for_people = place.run("dead-letters", "show")
    assert "3 messages wait on the dead-letter queue, 0 are hidden." in for_people.stdout
    assert CANARY not in done.stdout + done.stderr + for_people.stdout + for_people.stderr
    assert place.buried() == 3
    assert place.database.query("SELECT count(*) FROM user_logins") == [(0,)]


def test_a_failing_drain_loses_nothing_and_says_so(place: Place) -> None:
    send(place.sqs, place.login_queue, bodies(3))
    place.bury()
    broken = f"{place.settings['LOGIN_DATABASE_URL']}_gone"
    done = place.run("dead-letters", "drain", LOGIN_DATABASE_URL=broken)
    assert done.returncode == 1
    assert "Nothing was received" in done.stderr
    assert place.buried() == 3


def test_a_queue_of_the_setting_needs_no_redrive_policy(place: Place) -> None:
    url = place.dead_letter_queue
    send(place.sqs, url, bodies(2))
    bare = place.sqs.create_queue(QueueName="bare-logins")["QueueUrl"]
    without = place.run("dead-letters", "drain", LOGIN_QUEUE_URL=bare)
    assert without.returncode == 1
    assert "LOGIN_DEAD_LETTER_QUEUE_URL" in without.stderr
    told = {"LOGIN_QUEUE_URL": bare, "LOGIN_DEAD_LETTER_QUEUE_URL": url}
    done = place.run("dead-letters", "drain", "--json", **told)
    assert json.loads(done.stdout)["loaded"] == 2
    place.sqs.delete_queue(QueueUrl=bare)


def test_doctor_speaks_of_the_dead_letter_queue(place: Place) -> None:
    send(place.sqs, place.dead_letter_queue, bodies(2))
    well = _dead_letters(place.run("doctor", "--json"))
    assert well["ok"]
    assert "after 5 receives; 2 wait there" in str(well["description"])
    place.set_receives(2)
    place.sqs.set_queue_attributes(
        QueueUrl=place.dead_letter_queue, Attributes={"MessageRetentionPeriod": "60"}
    )
    unwell = _dead_letters(place.run("doctor", "--json"))
    assert not unwell["ok"]
    assert "maxReceiveCount is 2" in str(unwell["description"])
    assert "MessageRetentionPeriod" in str(unwell["description"])
    bare = place.sqs.create_queue(QueueName="bare-doctor")["QueueUrl"]
    without = _dead_letters(place.run("doctor", "--json", LOGIN_QUEUE_URL=bare))
    assert not without["ok"]
    assert "no redrive policy" in str(without["description"])
    place.sqs.delete_queue(QueueUrl=bare)


def _dead_letters(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    findings: list[dict[str, object]] = json.loads(done.stdout)["findings"]
    return next(each for each in findings if each["name"] == "dead letters")
