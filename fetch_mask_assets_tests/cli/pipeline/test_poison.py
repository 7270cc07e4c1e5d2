"""Messages that really kill the process end on the dead-letter queue; all others load."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from benchmarks.sqs_simulator.harsh_queue import HarshQueue, Moment
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.support import commands
from fetch_mask_assets_tests.support.logins import bodies
from fetch_mask_assets_tests.support.poison import (
    CRASHES,
    HANGS,
    interpreted,
    poisoned,
    python_path,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = 120
RECEIVES = 5
HIDDEN_SECONDS = 300
QUICK = {
    "LOGIN_VISIBILITY_SECONDS": str(HIDDEN_SECONDS),
    "LOGIN_RECEIVE_WAIT_SECONDS": "1",
    "LOGIN_MAX_EMPTY_RECEIVES": "2",
}


@pytest.fixture
def queue() -> Iterator[HarshQueue]:
    """A queue with five receives, and a dead-letter queue."""
    with HarshQueue() as own:
        own.create("logins", dead_letters="dead", max_receives=RECEIVES)
        yield own
        assert own.errors == []


@pytest.fixture
def settings(environment: dict[str, str], queue: HarshQueue, tmp_path: Path) -> dict[str, str]:
    """The test's own database and queue, and poison that works."""
    own = {name: text for name, text in environment.items() if not name.startswith("DAGSTER")}
    return {
        **own,
        **QUICK,
        **queue.environment("logins"),
        "HOME": str(tmp_path),
        "PYTHONPATH": python_path(tmp_path),
    }


@pytest.mark.timeout(900)
def test_poison_ends_on_the_dead_letter_queue_and_what_shared_its_batches_loads(
    settings: dict[str, str], queue: HarshQueue, tmp_path: Path
) -> None:
    good = queue.send("logins", bodies(GOOD))
    poison = queue.send("logins", [poisoned(number, CRASHES) for number in range(2)])
    # The poison works in interpreters that start, and so in the processes that dry-run messages.
    killed = interpreted("ingest", env=settings, cwd=tmp_path)
    assert killed.returncode == -signal.SIGSEGV
    queue.pass_time(HIDDEN_SECONDS)
    # Hidden messages are visible again once the ingestion has seen that there are some.
    queue.on(
        "GetQueueAttributes",
        lambda _call: queue.pass_time(HIDDEN_SECONDS),
        moment=Moment.ANSWERED,
    )
    done = commands.run("ingest", "--json", env=settings, cwd=tmp_path)
    queue.forget_hooks()
    assert done.returncode == 0, done.stderr
    database = LoginDatabase(settings["LOGIN_DATABASE_URL"])
    ledger = database.query("SELECT message_id FROM login_ingest.ledger")
    assert sorted(id_ for (id_,) in ledger) == sorted(good)
    assert json.loads(done.stdout)["loaded"] == GOOD
    assert [queue.lives[each].handed_out for each in poison] == [RECEIVES] * 2
    assert sorted(queue.on_queue("dead")) == sorted(poison)

    shown = commands.run("dead-letters", "show", "--json", env=settings, cwd=tmp_path)
    assert json.loads(shown.stdout)["profiles"] == {"kills the process that masks it": 2}
    rest = queue.send("dead", bodies(20))
    drained = commands.run("dead-letters", "drain", "--json", env=settings, cwd=tmp_path)
    assert drained.returncode == 1
    counts = json.loads(drained.stdout)
    assert (counts["loaded"], counts["remaining"]) == (len(rest), 2)
    assert "2 messages remain on the dead-letter queue" in drained.stderr
    outputs = [each.stdout + each.stderr for each in (killed, done, shown, drained)]
    assert CRASHES not in "".join(outputs)


@pytest.mark.long
def test_a_message_that_hangs_is_poison_as_well(
    settings: dict[str, str], queue: HarshQueue, tmp_path: Path
) -> None:
    *_, hanging = queue.send("dead", [*bodies(5), poisoned(1, HANGS)])
    done = commands.run("dead-letters", "drain", "--json", env=settings, cwd=tmp_path)
    counts = json.loads(done.stdout)
    assert (counts["loaded"], counts["remaining"]) == (5, 1)
    assert list(queue.on_queue("dead")) == [hanging]
