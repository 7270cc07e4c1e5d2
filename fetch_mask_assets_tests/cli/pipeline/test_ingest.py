"""`fetch-mask ingest` on an empty queue: when it makes a run, and when it needs none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from dagster import DagsterInstance, DagsterRunStatus

from fetch_mask_assets.cli.pipeline import ingest_runs
from fetch_mask_assets.cli.pipeline.ingest import ingest
from fetch_mask_assets.defs import assets
from fetch_mask_assets.pipeline.queue.backlog import QueueDepth
from fetch_mask_assets.pipeline.queue.limits import DrainEnd, DrainLimits
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue, QueueSettings, connect_queue
from fetch_mask_assets.settings import QueueTuning
from fetch_mask_assets_tests.support import commands
from fetch_mask_assets_tests.support.logins import bodies, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mypy_boto3_sqs import SQSClient

FRESHNESS_SECONDS = 600
RECORD = ".fetch-mask.last-run"
LIMITS = DrainLimits.of(QueueTuning(empty_receives=2))

# The commands that work without Dagster, and so start without its seconds of imports.
WITHOUT_DAGSTER = (
    "cli.main",
    "cli.pipeline.send",
    "cli.pipeline.ingest",
    "cli.pipeline.dead_letters",
    "cli.operations.alert",
    "cli.operations.keys",
    "cli.operations.unmask",
    "cli.operations.find",
    "cli.operations.erase",
    "cli.operations.quarantine",
    "cli.operations.upgrade_md5",
    "cli.completion",
)
MIGRATING = ("cli.local", "cli.pipeline.migrate")


@dataclass(frozen=True)
class Home:
    """A shell with a DAGSTER_HOME of its own."""

    directory: Path
    settings: Mapping[str, str] = field(repr=False)

    def ingest(
        self, *options: str, prepare: Callable[[], object] = commands.nothing
    ) -> dict[str, int]:
        """The counts of one command."""
        done = self.run(*options, prepare=prepare)
        assert done.returncode == 0, done.stderr
        counts: dict[str, int] = json.loads(done.stdout)
        return counts

    def run(
        self, *options: str, prepare: Callable[[], object] = commands.nothing
    ) -> subprocess.CompletedProcess[str]:
        """One command."""
        return commands.run(
            "ingest", "--json", *options, env=self.settings, cwd=self.directory, prepare=prepare
        )

    def runs(self) -> list[DagsterRunStatus]:
        """The state of each run, the oldest first."""
        with DagsterInstance.from_config(str(self.directory)) as instance:
            return [run.status for run in reversed(instance.get_runs())]

    def set_age(self, seconds: float) -> None:
        """Let the last run be so long ago."""
        at = time.time() - seconds
        os.utime(self.directory / RECORD, (at, at))


@pytest.fixture
def home(environment: dict[str, str], tmp_path: Path) -> Home:
    """An empty home, whose storage is SQLite."""
    directory = tmp_path / "home"
    directory.mkdir()
    own = {name: text for name, text in environment.items() if not name.startswith("DAGSTER")}
    quick = {
        "LOGIN_RECEIVE_WAIT_SECONDS": "1",
        "LOGIN_MAX_EMPTY_RECEIVES": "2",
        "LOGIN_FRESHNESS_SECONDS": str(FRESHNESS_SECONDS),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    return Home(directory, {**own, **quick, "DAGSTER_HOME": str(directory), "HOME": str(tmp_path)})


@pytest.fixture
def queue(
    queue_url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoginQueue]:
    """A connection to the test's queue."""
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    with connect_queue(QueueSettings(queue_url, wait_seconds=1)) as connected:
        yield connected


def test_an_empty_queue_needs_no_run_soon_after_one_that_succeeded(home: Home) -> None:
    assert home.ingest()["batches"] == home.ingest()["batches"] == 0
    assert home.runs() == [DagsterRunStatus.SUCCESS]


def test_an_empty_queue_gets_a_run_before_the_table_counts_as_stale(home: Home) -> None:
    home.ingest()
    home.set_age(FRESHNESS_SECONDS / 2 + 1)
    home.ingest()
    home.ingest()

    assert home.runs() == [DagsterRunStatus.SUCCESS] * 2


def test_a_record_of_the_future_is_not_believed(home: Home) -> None:
    home.ingest()
    home.set_age(-FRESHNESS_SECONDS)
    home.ingest()

    assert home.runs() == [DagsterRunStatus.SUCCESS] * 2


def test_messages_get_a_run_however_fresh_the_table_is(home: Home, sqs: SQSClient) -> None:
    home.ingest()
    send(sqs, home.settings["LOGIN_QUEUE_URL"], bodies(3))

    assert home.ingest()["loaded"] == 3
    assert home.runs() == [DagsterRunStatus.SUCCESS] * 2


def test_after_a_killed_run_an_empty_queue_gets_a_run_that_cleans_up(home: Home) -> None:
    home.ingest()
    home.set_age(FRESHNESS_SECONDS)
    step = commands.KilledAt("fetch_mask_assets.defs.assets.require_ready")
    assert home.run(prepare=step).returncode == -signal.SIGKILL

    home.ingest()

    success, failure = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE
    assert home.runs() == [success, failure, success]


def test_after_a_failed_run_an_empty_queue_gets_a_run(home: Home) -> None:
    home.ingest()
    home.set_age(FRESHNESS_SECONDS)
    failed = home.run(prepare=_fail_masking)
    assert failed.returncode == 1
    home.ingest()

    success, failure = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE
    assert home.runs() == [success, failure, success]


def test_a_run_is_recorded_before_the_wait_for_messages_in_flight(
    home: Home, sqs: SQSClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in home.settings.items():
        monkeypatch.setenv(name, text)
    send(sqs, home.settings["LOGIN_QUEUE_URL"], bodies(1))
    sqs.receive_message(
        QueueUrl=home.settings["LOGIN_QUEUE_URL"], WaitTimeSeconds=1, VisibilityTimeout=5
    )
    is_recorded: list[bool] = []
    look = LoginQueue.depth

    def depth(queue: LoginQueue) -> QueueDepth:
        is_recorded.append((home.directory / RECORD).exists())
        return look(queue)

    monkeypatch.setattr(LoginQueue, "depth", depth)
    CliRunner().invoke(ingest, ["--json"], catch_exceptions=False)

    # The first look is before any run; the next are after one, and in the wait.
    assert not is_recorded[0]
    assert len(is_recorded) > 2
    assert all(is_recorded[1:])


def test_sigterm_releases_messages_that_were_received_before_the_run(
    home: Home, sqs: SQSClient
) -> None:
    home.ingest()
    send(sqs, home.settings["LOGIN_QUEUE_URL"], bodies(3))

    ended = home.run(prepare=_terminated_before_the_run)

    assert ended.returncode == 1
    assert "released 3 messages to the queue" in ended.stderr


def test_an_empty_queue_is_seen_to_be(queue: LoginQueue) -> None:
    assert queue.is_empty(LIMITS)


def test_a_queue_with_messages_in_flight_is_not_empty(
    queue: LoginQueue, queue_url: str, sqs: SQSClient
) -> None:
    send(sqs, queue_url, bodies(1))
    sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=1)

    assert not queue.is_empty(LIMITS)


def test_messages_that_the_counts_do_not_show_yet_go_to_the_next_receive(
    queue: LoginQueue, queue_url: str, sqs: SQSClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = send(sqs, queue_url, bodies(3))
    monkeypatch.setattr(LoginQueue, "depth", lambda _queue: QueueDepth(0, 0, 0))

    assert not queue.is_empty(LIMITS)
    received = queue.receive(LIMITS)

    assert set(received.raw["message_id"]) == set(sent)
    assert received.raw["receive_count"].to_list() == [1, 1, 1]
    assert received.end is DrainEnd.DRY
    assert queue.receive(LIMITS).raw.is_empty()


def test_messages_that_the_counts_do_not_show_yet_are_loaded_at_their_first_receive(
    home: Home, sqs: SQSClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in home.settings.items():
        monkeypatch.setenv(name, text)
    home.ingest()
    send(sqs, home.settings["LOGIN_QUEUE_URL"], bodies(3))
    monkeypatch.setattr(LoginQueue, "depth", lambda _queue: QueueDepth(0, 0, 0))

    done = CliRunner().invoke(ingest, ["--json"], catch_exceptions=False)

    assert json.loads(done.stdout)["loaded"] == 3
    with DagsterInstance.from_config(str(home.directory)) as instance:
        [run] = instance.get_runs(limit=1)
        steps = [entry.asset_materialization for entry in instance.all_logs(run.run_id)]
    redelivered = [
        each.metadata["redelivered"].value
        for each in steps
        if each and "redelivered" in each.metadata
    ]
    assert redelivered == [0]


@pytest.mark.parametrize(
    ("modules", "loaded"),
    [(WITHOUT_DAGSTER, []), (MIGRATING, ["alembic", "sqlalchemy"])],
    ids=["alone", "migrating"],
)
def test_commands_that_do_without_dagster_do_not_import_it(
    modules: Sequence[str], loaded: list[str]
) -> None:
    imports = "\n".join(f"import fetch_mask_assets.{module}" for module in modules)
    seen = "print(sorted({'dagster', 'alembic', 'sqlalchemy'} & {*sys.modules}))"
    program = f"import sys\n{imports}\n{seen}"
    done = subprocess.run(  # noqa: S603 (our own program)
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == f"{loaded}\n"


def _terminated_before_the_run() -> None:
    """Makes the counts of the queue lag, and ends the command when it would make a run."""
    setattr(LoginQueue, "depth", lambda _queue: QueueDepth(0, 0, 0))  # noqa: B010 (for the process)
    setattr(ingest_runs, "ingest_logins", _terminate)  # noqa: B010 (as above)


def _terminate(*_inputs: object, **_options: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def _fail_masking() -> None:
    """Makes a run fail."""

    def fail(*_inputs: object) -> None:
        raise RuntimeError

    setattr(assets, "mask_and_check", fail)  # noqa: B010 (not exported)
