"""Runs as Dagster starts them: launched from its pages, executed again, asked for by the sensor.

Belongs here: what a scenario does through Dagster instead of the command line. Not: other faults.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.sqs_simulator.queue_faults import Fault, FaultKind, FaultPlan
from fetch_mask_assets_tests.chaos.invariants import Ended
from fetch_mask_assets_tests.chaos.wire import ROWS, Event, Moment, WireAction
from fetch_mask_assets_tests.chaos.world import QUEUE, World, printed
from fetch_mask_assets_tests.support.webserver import Webserver, webserver

# The sensor's interval is 15 seconds.
HOUR_OF_TICKS = 240
TEN_MINUTES_OF_TICKS = 40

_ALL_STEPS = "ALL_STEPS"
_FROM_FAILURE = "FROM_FAILURE"
_HIDDEN_SECONDS = 3_600

# No daemon, whose sensor would start runs of its own beside those of the scenario.
_WITHOUT_QUEUE = """
run_coordinator:
  module: dagster.core.run_coordinator
  class: DefaultRunCoordinator
"""

_TICKS = """
import json, sys
from dagster import DagsterInstance, SkipReason, build_sensor_context
from fetch_mask_assets.definitions import defs
names = ("login_queue", "login_database", "masking_keys")
resources = {name: defs.resources[name] for name in names}
sensor = defs.resolve_sensor_def("login_queue_depth")
skipped, asked = set(), 0
with DagsterInstance.get() as instance:
    for _ in range(int(sys.argv[1])):
        with build_sensor_context(instance=instance, resources=resources) as context:
            outcome = sensor(context)
        if isinstance(outcome, SkipReason):
            skipped.add(outcome.skip_message)
        else:
            asked += len(outcome.run_requests)
print(json.dumps({"asked": asked, "skipped": sorted(skipped)}))
"""


def executed_again(world: World, dice: random.Random) -> None:
    """A good run whose deletes had no effect is executed again from the page."""
    stale = Fault(kind=FaultKind.STALE, operation="DeleteMessageBatch", chance=1)
    world.queue.plan = FaultPlan((stale,), dice.randrange(2**32))
    with _pages(world) as server:
        first = server.launch()
        world.must(_end(world, server, first) == "SUCCESS", "the first run failed")
        world.queue.plan = FaultPlan()
        world.queue.pass_time(_HIDDEN_SECONDS)
        world.send(8)
        again = server.execute_again(first, _ALL_STEPS)
        world.must(_end(world, server, again) == "SUCCESS", "the run executed again failed")
    handed_out = max(life.handed_out for life in world.queue.lives.values())
    world.must(handed_out > 1, "no message was handed out twice")


def step_retried(world: World, _dice: random.Random) -> None:
    """A run whose commit failed is retried from that step on, then executed again as a whole."""

    def away(_event: Event) -> WireAction:
        world.wire.is_refusing = True
        return WireAction.RESET

    world.wire.on(Moment.COPY_DATA, away, nth=1, within=ROWS)
    with _pages(world) as server:
        first = server.launch()
        world.must(_end(world, server, first) == "FAILURE", "a run without a database ended well")
        world.wire.is_refusing = False
        world.queue.pass_time(_HIDDEN_SECONDS)
        retried = server.execute_again(first, _FROM_FAILURE)
        world.must(_end(world, server, retried) == "FAILURE", "a step without its batch ended well")
        description = world.ended[-1].said
        world.must(
            "lives only inside the run that received it" in description, "the retry says not why"
        )
        world.must(not world.committed(), "a step without its batch committed")
        again = server.execute_again(first, _ALL_STEPS)
        world.must(_end(world, server, again) == "SUCCESS", "the run executed again failed")
        world.must(bool(world.committed()), "the run executed again committed nothing")


def hour_without_database(world: World, _dice: random.Random) -> None:
    """The database goes away in a batch; then the sensor ticks for what would be an hour."""

    def away(_event: Event) -> WireAction:
        world.wire.is_refusing = True
        return WireAction.RESET

    world.wire.on(Moment.COPY_DATA, away, nth=1, within=ROWS)
    world.must(world.run().exit_code != 0, "a run without a database ended well")
    world.queue.pass_time(_HIDDEN_SECONDS)
    receives = world.queue.calls["ReceiveMessage"]
    during = _tick(world, HOUR_OF_TICKS)
    world.must(during["asked"] == 0, f"{during['asked']} runs were asked for in the outage")
    world.must("database" in str(during["skipped"]), "the sensor does not say why it asks for none")
    world.must(world.queue.calls["ReceiveMessage"] == receives, "receives were spent")
    most = max(life.handed_out for life in world.queue.lives.values())
    world.must(most == 1, f"a message was handed out {most} times")
    world.must(len(world.queue.on_queue(QUEUE)) == len(world.sent), "something was deleted")
    world.wire.is_refusing = False
    world.must(_tick(world, 1)["asked"] > 0, "no run was asked for after the outage")


def minutes_on_read_only(world: World, _dice: random.Random) -> None:
    """The server takes no writes while the sensor ticks for what would be ten minutes."""
    name = world.database_url.rpartition("/")[2]
    world.administer(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    during = _tick(world, TEN_MINUTES_OF_TICKS)
    writable = "SET default_transaction_read_only = off"
    world.administer(writable, f"ALTER DATABASE {name} RESET default_transaction_read_only")
    world.must(during["asked"] == 0, f"{during['asked']} runs were asked for of a read-only server")
    world.must("25006" in str(during["skipped"]), "the sensor does not say why it asks for none")
    world.must(_tick(world, 1)["asked"] > 0, "no run was asked for once it took writes")


@contextmanager
def _pages(world: World) -> Iterator[Webserver]:
    (world.directory / "dagster" / "dagster.yaml").write_text(_WITHOUT_QUEUE)
    with webserver(world.stack, world.directory, world.settings()) as server:
        yield server


def _end(world: World, server: Webserver, run_id: str) -> str:
    """The status of a run, which is remembered as a process that has ended."""
    status = server.status_at_the_end(run_id)
    is_good = status == "SUCCESS"
    said = status if is_good else server.failures(run_id)
    world.ended.append(Ended(0 if is_good else 1, said))
    return status


def _tick(world: World, times: int) -> dict[str, Any]:
    ended = world.end(world.start_driver(sys.executable, "-c", _TICKS, str(times)))
    world.must(ended.exit_code == 0, f"the sensor failed: {ended.said[-300:]}")
    return {"asked": -1, "skipped": []} | printed(ended)
