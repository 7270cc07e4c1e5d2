"""Poison, a killed run and an outage of the database: no good message ends as a dead letter."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dagster import DagsterInstance, SensorDefinition, SkipReason, build_sensor_context

from benchmarks.sqs_simulator.harsh_queue import HarshQueue
from fetch_mask_assets.definitions import build_definitions
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.local_stack.state import State, new_state
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.postgres.migrate import upgrade
from fetch_mask_assets_tests.support import commands
from fetch_mask_assets_tests.support.held_table import held_logins, wait_for_copy
from fetch_mask_assets_tests.support.logins import bodies
from fetch_mask_assets_tests.support.poison import CRASHES, interpreted, poisoned, python_path

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = 120
TICKS = 15
RECEIVES = 5
HIDDEN_SECONDS = 300
QUICK = {
    "LOGIN_VISIBILITY_SECONDS": str(HIDDEN_SECONDS),
    "LOGIN_RECEIVE_WAIT_SECONDS": "1",
    "LOGIN_MAX_EMPTY_RECEIVES": "2",
}


class Server:
    """A Postgres of the test's own, which can be stopped for real."""

    def __init__(self, directory: Path, state: State) -> None:
        """Starts it, with an empty warehouse."""
        self._directory, self._state = directory, state
        self.start()
        postgres.create_databases(state, ("logins",))
        upgrade(self.url)

    @property
    def url(self) -> str:
        """The warehouse."""
        return postgres.url(self._state, "logins")

    def start(self) -> None:
        """Ends an outage."""
        postgres.start(self._directory, self._state)

    def stop(self) -> None:
        """Begins one; whoever is connected is thrown out."""
        postgres.stop_server(self._directory)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is gone afterwards."""
    directory = tmp_path_factory.mktemp("outage") / "postgres"
    try:
        yield Server(directory, new_state())
    finally:
        postgres.stop_server(directory)


@pytest.fixture
def queue() -> Iterator[HarshQueue]:
    """A queue with five receives that knows how often it handed out each message."""
    with HarshQueue() as own:
        own.create("logins", dead_letters="dead", max_receives=RECEIVES)
        yield own
        assert own.errors == []


@pytest.fixture
def settings(
    server: Server, queue: HarshQueue, keysets_directory: Path, tmp_path: Path
) -> dict[str, str]:
    """The test's own queue and server, and poison that works."""
    return {
        **QUICK,
        **queue.environment("logins"),
        "LOGIN_DATABASE_URL": server.url,
        "MASKING_KEYSETS": str(keysets_directory),
        "HOME": str(tmp_path),
        "PYTHONPATH": python_path(tmp_path),
    }


@pytest.mark.long
@pytest.mark.timeout(600)
def test_poison_a_kill_and_an_outage_of_many_ticks_send_no_good_message_to_the_dead_letters(
    settings: dict[str, str],
    server: Server,
    queue: HarshQueue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = queue.send("logins", bodies(GOOD))
    [poison] = queue.send("logins", [poisoned(0, CRASHES)])

    # On its first delivery the poison costs each message of its batch one receive.
    killed = interpreted("ingest", env=settings, cwd=tmp_path)
    assert killed.returncode == -signal.SIGSEGV
    assert _most_received(queue, good) == queue.lives[poison].handed_out == 1
    queue.pass_time(HIDDEN_SECONDS)

    # So does a killed run; its messages come back once they are visible again.
    with _waiting_in_its_commit(settings, server, tmp_path) as process:
        process.kill()
    assert _most_received(queue, good) == 2
    queue.pass_time(2 * HIDDEN_SECONDS)

    # And so does an outage that begins while a run holds messages, but not its length.
    with _waiting_in_its_commit(settings, server, tmp_path) as process:
        server.stop()
        assert process.wait(120) == 1
    assert _most_received(queue, good) == 3
    queue.pass_time(HIDDEN_SECONDS)
    receives = queue.calls["ReceiveMessage"]
    _assert_nothing_is_received(settings, tmp_path)
    _assert_ticks_ask_for_nothing(settings, monkeypatch)
    assert queue.calls["ReceiveMessage"] == receives

    server.start()
    done = commands.run("ingest", "--json", env=settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["loaded"] == GOOD
    ledger = LoginDatabase(server.url).query("SELECT message_id FROM login_ingest.ledger")
    assert sorted(id_ for (id_,) in ledger) == sorted(good)
    assert _most_received(queue, good) == 4 < RECEIVES
    assert queue.lives[poison].handed_out == RECEIVES
    assert (list(queue.on_queue("dead")), queue.on_queue("logins")) == ([poison], {})


def _most_received(queue: HarshQueue, message_ids: list[str]) -> int:
    return max(queue.lives[each].handed_out for each in message_ids)


@contextmanager
def _waiting_in_its_commit(
    settings: dict[str, str], server: Server, cwd: Path
) -> Iterator[commands.Command]:
    """An ingestion that has received its batch and waits for a lock; it is gone afterwards."""
    said = cwd / "said"
    with (
        held_logins(server.url),
        commands.start(
            "ingest", env=settings, cwd=cwd, streams=commands.Streams(stderr=said)
        ) as process,
    ):
        try:
            wait_for_copy(server.url, process, 120, lambda: said.read_text(encoding="utf-8"))
            yield process
        finally:
            process.kill()


def _assert_nothing_is_received(settings: dict[str, str], cwd: Path) -> None:
    down = commands.run("ingest", env=settings, cwd=cwd)
    assert down.returncode == 1
    assert "Nothing was received: [database]" in down.stderr


def _assert_ticks_ask_for_nothing(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in settings.items():
        if name.startswith(("LOGIN", "MASKING", "AWS")):
            monkeypatch.setenv(name, text)
    definitions = build_definitions(settings)
    sensor: SensorDefinition = definitions.resolve_sensor_def("login_queue_depth")
    resources = definitions.resources or {}
    given = {name: resources[name] for name in ("login_queue", "login_database", "masking_keys")}
    with DagsterInstance.ephemeral() as instance:
        for _ in range(TICKS):
            with build_sensor_context(instance=instance, resources=given) as context:
                outcome = sensor(context)
            assert isinstance(outcome, SkipReason)
            assert "Not ready" in str(outcome.skip_message)
