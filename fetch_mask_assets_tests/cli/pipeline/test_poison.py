"""Messages that really kill the process end on the dead-letter queue; all others load."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.support.logins import bodies, send
from fetch_mask_assets_tests.support.poison import CRASHES, HANGS, poisoned, python_path

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

FETCH_MASK = str(Path(sys.executable).parent / "fetch-mask")
GOOD = 400
QUICK = {
    "LOGIN_VISIBILITY_SECONDS": "20",
    "LOGIN_BATCH_SECONDS": "10",
    "LOGIN_RECEIVE_WAIT_SECONDS": "1",
    "LOGIN_MAX_EMPTY_RECEIVES": "2",
}


@pytest.fixture
def settings(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The test's own database and queue, five receives, and poison that works."""
    own = {name: text for name, text in environment.items() if not name.startswith("DAGSTER")}
    return {**own, **QUICK, "HOME": str(tmp_path), "PYTHONPATH": python_path(tmp_path)}


@pytest.mark.timeout(900)
def test_poison_ends_on_the_dead_letter_queue_and_what_shared_its_batches_loads(
    settings: dict[str, str], sqs: SQSClient, tmp_path: Path
) -> None:
    url = settings["LOGIN_QUEUE_URL"]
    good = send(sqs, url, bodies(GOOD))
    poison = send(sqs, url, [poisoned(number, CRASHES) for number in range(2)])
    killed = _run(settings, tmp_path, "ingest")
    assert killed.returncode == -signal.SIGSEGV
    # Waits for what the dead process held, and then for each return of the poison.
    done = _run(settings, tmp_path, "ingest", "--json")
    assert done.returncode == 0, done.stderr
    database = LoginDatabase(settings["LOGIN_DATABASE_URL"])
    ledger = database.query("SELECT message_id FROM login_ingest.ledger")
    assert sorted(id_ for (id_,) in ledger) == sorted(good)
    assert json.loads(done.stdout)["loaded"] == GOOD
    assert _buried(sqs, url) == dict.fromkeys(poison, 5)

    shown = _run(settings, tmp_path, "dead-letters", "show", "--json")
    assert json.loads(shown.stdout)["profiles"] == {"kills the process that masks it": 2}
    rest = send(sqs, f"{url}-dead-letter", bodies(20))
    drained = _run(settings, tmp_path, "dead-letters", "drain", "--json")
    assert drained.returncode == 1
    counts = json.loads(drained.stdout)
    assert (counts["loaded"], counts["remaining"]) == (len(rest), 2)
    assert "2 messages remain on the dead-letter queue" in drained.stderr
    outputs = [each.stdout + each.stderr for each in (killed, done, shown, drained)]
    assert CRASHES not in "".join(outputs)


def test_a_message_that_hangs_is_poison_as_well(
    settings: dict[str, str], sqs: SQSClient, tmp_path: Path
) -> None:
    url = f"{settings['LOGIN_QUEUE_URL']}-dead-letter"
    send(sqs, url, [*bodies(5), poisoned(1, HANGS)])
    done = _run(settings, tmp_path, "dead-letters", "drain", "--json")
    counts = json.loads(done.stdout)
    assert (counts["loaded"], counts["remaining"]) == (5, 1)
    assert len(_buried(sqs, settings["LOGIN_QUEUE_URL"])) == 1


def _run(settings: dict[str, str], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (our own program, no shell)
        [FETCH_MASK, *arguments],
        env=settings,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _buried(sqs: SQSClient, login_queue: str) -> dict[str, int]:
    """The message ids on the dead-letter queue, with how often each was received before."""
    answer = sqs.receive_message(
        QueueUrl=f"{login_queue}-dead-letter",
        MaxNumberOfMessages=10,
        WaitTimeSeconds=15,
        VisibilityTimeout=0,
        MessageSystemAttributeNames=["ApproximateReceiveCount"],
    )
    return {
        message["MessageId"]: int(message["Attributes"]["ApproximateReceiveCount"]) - 1
        for message in answer.get("Messages", [])
    }
