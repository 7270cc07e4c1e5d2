"""Every fault as an entry: its name, the row it stands for, and how it comes about.

Belongs here: what breaks, and what a scenario alone can see (`World.must`). What must hold after
each of them is in `invariants`.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from benchmarks.sqs_simulator.harsh_queue import Moment as QueueMoment
from benchmarks.sqs_simulator.queue_faults import Fault, FaultKind, FaultPlan
from benchmarks.sqs_simulator.sqs_protocol import Call, DropCallError
from fetch_mask_assets.keys.storage import create_keysets
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets_tests.chaos import dagster_runs, machine, tables
from fetch_mask_assets_tests.chaos.invariants import ALL, Ended
from fetch_mask_assets_tests.chaos.wire import (
    LEDGER,
    ROWS,
    Direction,
    Event,
    Moment,
    WireAction,
    WireFault,
    WirePlan,
)
from fetch_mask_assets_tests.chaos.world import DEAD, INGEST, QUEUE, Running, World, printed

if TYPE_CHECKING:
    from collections.abc import Iterator

Bring = Callable[[World, random.Random], None]

_HANDED_BACK_SECONDS = 11
_LOCK_WAIT_SECONDS = 150
_DAY_SECONDS = 86_400
_HELD_SECONDS = 3_600
_MAX_ATTEMPTS = 10
_MAX_RECEIVES = 5


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault, how it comes about, and which invariants hold once it is over."""

    name: str
    row: str
    bring: Bring
    checks: tuple[str, ...] = ALL


# Kill points

_SELF_SIGNAL = """
import os, sys
from pydoc import locate
from fetch_mask_assets.cli.main import main
where, _, name = sys.argv.pop(1).rpartition(".")
by = int(sys.argv.pop(1))
original = getattr(locate(where), name)
def signalled(*inputs, **named):
    os.kill(os.getpid(), by)
    return original(*inputs, **named)
setattr(locate(where), name, signalled)
main()
"""
"""Only for masking: nothing of it is to be seen from outside the process."""


@dataclass(frozen=True, slots=True)
class KillPoint:
    """A place in a run; `arm` makes the process get its signal there."""

    name: str
    arm: Callable[[World, Callable[[], None], bool], None]
    is_committed: bool = False
    is_on_its_way: bool = False
    """What is sent takes effect, unless the connection breaks with its process."""

    def commits_under(self, by: signal.Signals) -> bool:
        """Whether the batch of a process that gets this signal here is committed."""
        # The wire passes COMMIT on at once, before the process can come to ask what was recorded.
        return self.is_committed or (self.is_on_its_way and by is not signal.SIGKILL)


def _at_wire(moment: Moment, within: str) -> Callable[[World, Callable[[], None], bool], None]:
    def arm(world: World, strike: Callable[[], None], is_final: bool) -> None:  # noqa: FBT001 (a fact)
        def struck(_event: Event) -> WireAction:
            strike()
            return WireAction.CUT if is_final else WireAction.PASS

        world.wire.on(moment, struck, nth=1, within=within)

    return arm


def _at_queue(
    operation: str, nth: int, moment: QueueMoment
) -> Callable[[World, Callable[[], None], bool], None]:
    def arm(world: World, strike: Callable[[], None], is_final: bool) -> None:  # noqa: FBT001 (a fact)
        def struck(_call: Call) -> None:
            strike()
            if is_final and moment is QueueMoment.ARRIVES:
                raise DropCallError

        world.queue.on(operation, struck, nth=nth, moment=moment)

    return arm


# The last that a run does before it receives.
_REGISTRY = "login_ingest.register_keys("

KILL_POINTS = (
    KillPoint("before receive", _at_wire(Moment.STATEMENT, _REGISTRY)),
    KillPoint("after receive", _at_queue("ReceiveMessage", 2, QueueMoment.ANSWERED)),
    KillPoint("after masking", _at_wire(Moment.STATEMENT, "nextval(")),
    KillPoint("inside the copy", _at_wire(Moment.COPY_DATA, ROWS)),
    KillPoint("before commit", _at_wire(Moment.COMMIT_SENT, LEDGER), is_on_its_way=True),
    KillPoint(
        "at the answer to commit", _at_wire(Moment.COMMIT_ANSWERED, LEDGER), is_committed=True
    ),
    KillPoint(
        "after commit and before delete",
        _at_queue("DeleteMessageBatch", 1, QueueMoment.ARRIVES),
        is_committed=True,
    ),
    KillPoint(
        "half-way through the deletes",
        _at_queue("DeleteMessageBatch", 2, QueueMoment.ARRIVES),
        is_committed=True,
    ),
)


def _signal_at(point: KillPoint, by: signal.Signals) -> Bring:
    def bring(world: World, _dice: random.Random) -> None:
        struck = threading.Event()
        victims: list[Running] = []

        def strike() -> None:
            struck.set()
            victims[0].kill(by)

        point.arm(world, strike, by is signal.SIGKILL)
        victims.append(world.start())
        _end_of_victim(world, victims[0], by, f"{point.name}: {by.name}")
        world.must(struck.is_set(), f"{point.name}: the process never came there")
        committed = bool(world.committed())
        world.must(committed == point.commits_under(by), f"{point.name}: committed is {committed}")

    return bring


def _signal_while_masking(by: signal.Signals) -> Bring:
    def bring(world: World, _dice: random.Random) -> None:
        driver = (
            sys.executable,
            "-c",
            _SELF_SIGNAL,
            "fetch_mask_assets.pipeline.batch.checked_batch.mask_batch",
        )
        victim = world.start_driver(*driver, str(int(by)), *INGEST)
        victim.signalled = by
        _end_of_victim(world, victim, by, f"while masking: {by.name}")
        world.must(not world.committed(), "while masking: something was committed")

    return bring


def _kill_at_every_point(world: World, _dice: random.Random) -> None:
    for point in KILL_POINTS:
        world.send(24)
        struck = threading.Event()
        victims: list[Running] = []

        def strike(struck: threading.Event = struck, victims: list[Running] = victims) -> None:
            struck.set()
            victims[0].kill()

        point.arm(world, strike, True)  # noqa: FBT003 (a kill is final)
        victims.append(world.start())
        world.end(victims[0])
        world.must(struck.is_set(), f"{point.name}: the process never came there")
        world.end_faults()


def _signal_at_random(by: signal.Signals) -> Bring:
    def bring(world: World, dice: random.Random) -> None:
        for _ in range(3):
            victim = world.start()
            _sleep_or_end(victim, dice.uniform(1.0, 15.0))
            victim.kill(by)
            world.end(victim)
            _must_hand_back(world, by, "at a random time")
            world.send(8)

    return bring


def _end_of_victim(world: World, victim: Running, by: signal.Signals, where: str) -> None:
    ended = world.end(victim)
    world.must(ended.exit_code != 0, f"{where}: exit code 0")
    if by is not signal.SIGKILL:
        _must_say_what_is_recorded(world, ended, where)
    _must_hand_back(world, by, where)


def _must_say_what_is_recorded(world: World, ended: Ended, where: str) -> None:
    """For a process that is the only one so far."""
    said, recorded = printed(ended), tables.recorded(world.database_url)
    world.must(said == recorded, f"{where}: it says {said}, and recorded is {recorded}")


def _must_hand_back(world: World, by: signal.Signals, where: str) -> None:
    if by is signal.SIGKILL:
        return
    world.queue.pass_time(_HANDED_BACK_SECONDS)
    kept = world.queue.in_flight(QUEUE) - world.committed()
    world.must(not kept, f"{where}: {len(kept)} messages were not handed back")


def _sleep_or_end(victim: Running, seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while victim.process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.02)


# The queue


def _queue_meets(*faults: Fault, runs: int = 1) -> Bring:
    """Runs under these faults; each that names its calls must be met."""

    def bring(world: World, dice: random.Random) -> None:
        world.queue.plan = FaultPlan(faults, dice.randrange(2**32))
        for _ in range(runs):
            world.run()
            world.queue.pass_time(3_600)
        met = {kind for _, kind in world.queue.met}
        for fault in faults:
            world.must(fault.kind in met or not fault.calls, f"no call met: {fault.kind}")

    return bring


def _refused_for_good(code: str) -> Bring:
    def bring(world: World, dice: random.Random) -> None:
        world.queue.plan = FaultPlan(
            (Fault(kind=FaultKind.REFUSED, chance=1, code=code),), dice.randrange(2**32)
        )
        ended = world.run()
        world.must(ended.exit_code != 0, "a refused queue ended well")
        world.must(code in ended.said or "NonExistentQueue" in ended.said, "the code is not said")

    return bring


def _refused_after_receiving(world: World, dice: random.Random) -> None:
    fault = Fault(
        kind=FaultKind.REFUSED, operation="DeleteMessageBatch", chance=1, code="AccessDenied"
    )
    world.queue.plan = FaultPlan((fault,), dice.randrange(2**32))
    world.must(world.run().exit_code != 0, "a run that could not delete ended well")
    world.must(bool(world.committed()), "nothing was committed")


def _early_visibility(world: World, dice: random.Random) -> None:
    world.queue.plan = FaultPlan(
        (
            Fault(kind=FaultKind.EARLY, operation="ReceiveMessage", chance=1, seconds=0.5),
            Fault(kind=FaultKind.SLOW, operation="DeleteMessageBatch", calls=(1,), seconds=1),
        ),
        dice.randrange(2**32),
    )
    both = [world.start(LOGIN_BATCH_MESSAGES="40") for _ in range(2)]
    for running in both:
        world.end(running)
    handed_out = max(life.handed_out for life in world.queue.lives.values())
    world.must(handed_out > 1, "no message was handed out twice")


def _five_deliveries(world: World, dice: random.Random) -> None:
    world.queue.plan = FaultPlan(
        (
            Fault(kind=FaultKind.EARLY, operation="ReceiveMessage", chance=1),
            Fault(kind=FaultKind.SHUFFLE, operation="ReceiveMessage", chance=1),
            Fault(kind=FaultKind.STALE, operation="DeleteMessageBatch", chance=1),
        ),
        dice.randrange(2**32),
    )
    world.run("ingest", "--json", "--no-wait", "--max-batches", "2", LOGIN_BATCH_MESSAGES="80")
    counts = [life.handed_out for life in world.queue.lives.values()]
    world.must(sum(counts) >= 5 * len(counts), "messages were delivered less than five times")


def _empty_answers(world: World, dice: random.Random) -> None:
    faults = (
        Fault(kind=FaultKind.EMPTY, operation="ReceiveMessage", calls=(1, 3, 4)),
        Fault(kind=FaultKind.PART, operation="ReceiveMessage", chance=0.7, share=0.3),
    )
    world.queue.plan = FaultPlan(faults, dice.randrange(2**32))
    ended = world.run(LOGIN_MAX_EMPTY_RECEIVES="8", LOGIN_RECEIVERS="1")
    world.must(ended.exit_code == 0, "the run failed")
    world.must(not world.queue.counts(QUEUE).all, "the drain stopped at an empty answer")


def _in_flight_limit(world: World, _dice: random.Random) -> None:
    """Others hold as much as may be in flight: a receive finds nothing, though messages wait."""
    usual = world.queue.in_flight_limit
    world.queue.in_flight_limit = 8
    world.queue.client().receive_message(
        QueueUrl=world.queue.url(QUEUE), MaxNumberOfMessages=8, VisibilityTimeout=_HELD_SECONDS
    )
    ended = world.run()
    world.must(ended.exit_code == 0, "a queue at its limit failed the run")
    world.must("receives return none" in ended.said, "it is not said that messages wait")
    world.must(bool(world.queue.limited), "no receive met the limit")
    world.must(not world.committed(), "something was received beyond the limit")
    # Then one batch holds as much as may be in flight before it has received all that waits.
    world.queue.pass_time(_HELD_SECONDS)
    limited = world.queue.limited
    world.must(world.run().exit_code == 0, "a batch that reached the limit failed the run")
    world.must(world.queue.limited > limited, "the batch did not meet the limit")
    world.must(bool(world.committed()), "the batch that reached the limit was not loaded")
    world.queue.in_flight_limit = usual


# The database


def _database_down(world: World, _dice: random.Random) -> None:
    world.wire.is_refusing = True
    ended = world.run()
    world.must(ended.exit_code != 0, "a run without a database ended well")
    _must_not_receive(world)


def _must_not_receive(world: World) -> None:
    received = world.queue.calls["ReceiveMessage"]
    world.must(not received, f"{received} receives were spent")


def _commit_meets(moment: Moment, order: WireAction) -> Bring:
    def bring(world: World, _dice: random.Random) -> None:
        world.wire.on(moment, lambda _event: order, nth=1, within=LEDGER)
        ended = world.run()
        world.must(world.wire.met[order] == 1, "COMMIT did not pass the wire")
        world.must(ended.exit_code == 0, "it was not mended by another attempt")

    return bring


def _goes_away(order: WireAction, *, for_good: bool) -> Bring:
    def bring(world: World, _dice: random.Random) -> None:
        def away(_event: Event) -> WireAction:
            world.wire.is_refusing = for_good
            return order

        world.wire.on(Moment.COPY_DATA, away, nth=1, within=ROWS)
        ended = world.run()
        world.must(ended.exit_code == (1 if for_good else 0), f"exit code {ended.exit_code}")
        if for_good:
            _must_hand_back(world, signal.SIGTERM, "after an outage")

    return bring


def _restart(world: World, _dice: random.Random) -> None:
    directory, state = world.stack.layout.postgres, world.stack.state

    def restart(_event: Event) -> WireAction:
        postgres.stop_server(directory)
        postgres.start(directory, state)
        return WireAction.CUT

    world.wire.on(Moment.COPY_DATA, restart, nth=1, within=ROWS)
    world.must(world.run().exit_code == 0, "a restart was not survived")


def _stopped(world: World, _dice: random.Random) -> None:
    directory, state = world.stack.layout.postgres, world.stack.state
    postgres.stop_server(directory)
    try:
        world.must(world.run().exit_code != 0, "a run without a database ended well")
    finally:
        postgres.start(directory, state)
    _must_not_receive(world)


def _fails_over_to_read_only(world: World, _dice: random.Random) -> None:
    name = world.database_url.rpartition("/")[2]

    def fail_over(_event: Event) -> WireAction:
        world.administer(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        return WireAction.RESET

    world.wire.on(Moment.COPY_DATA, fail_over, nth=1, within=ROWS)
    ended = world.run()
    world.must(ended.exit_code != 0 and "25006" in ended.said, "read-only is not said")
    _must_hand_back(world, signal.SIGTERM, "after a fail-over")
    writable = "SET default_transaction_read_only = off"
    world.administer(writable, f"ALTER DATABASE {name} RESET default_transaction_read_only")


def _wire_breaks(direction: Direction, most_bytes: int) -> Bring:
    def bring(world: World, dice: random.Random) -> None:
        fault = WireFault(
            kind=dice.choice([WireAction.CUT, WireAction.RESET]),
            direction=direction,
            chance=0.3,
            most_bytes=most_bytes,
        )
        world.wire.plan = WirePlan((fault,), dice.randrange(2**32))
        for _ in range(3):
            world.run()
            world.queue.pass_time(3_600)
            world.send(8)
        world.must(bool(world.wire.met), "no connection broke")

    return bring


def _slow_wire(world: World, _dice: random.Random) -> None:
    world.wire.plan = WirePlan((WireFault(kind=WireAction.PASS, chance=1, seconds=0.02),))
    world.must(world.run().exit_code == 0, "a slow database was not survived")


def _injected(sqlstate: str, times: int | None, *, ends_well: bool) -> Bring:
    """A trigger raises this SQLSTATE at the first rows, or for good."""

    def bring(world: World, _dice: random.Random) -> None:
        world.administer(
            "CREATE SEQUENCE public.strikes",
            "GRANT USAGE ON SEQUENCE public.strikes TO PUBLIC",
            "CREATE FUNCTION strike() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF nextval('public.strikes') <= {times or 1_000_000} THEN"
            f" RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END IF; RETURN NEW; END $$",
            # Not at the row of nobody's that a run tries before it receives.
            "CREATE TRIGGER strike BEFORE INSERT ON user_logins"
            " FOR EACH ROW WHEN (NEW.user_id LIKE 'user-%') EXECUTE FUNCTION strike()",
        )
        ended = world.run()
        world.must(ended.exit_code == (0 if ends_well else 1), f"exit code {ended.exit_code}")
        if not ends_well:
            _must_try(world, is_again=sqlstate.startswith(_ROLLED_BACK))
            world.must(sqlstate in ended.said, "the SQLSTATE is not said")
            world.must(len(world.queue.on_queue(QUEUE)) == len(world.sent), "something was deleted")
            _must_hand_back(world, signal.SIGTERM, "after a failed commit")
        world.administer("DROP TRIGGER strike ON user_logins", "DROP SEQUENCE public.strikes")

    return bring


def _refuses_writes(world: World, _dice: random.Random) -> None:
    """More runs than the redrive policy allows receives, on a database without room."""
    world.queue.create(QUEUE, dead_letters=DEAD, max_receives=_MAX_RECEIVES)
    world.administer(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION USING ERRCODE = '53100'; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON user_logins"
        " FOR EACH ROW EXECUTE FUNCTION full_disk()",
    )
    for _ in range(_MAX_RECEIVES + 1):
        world.must(world.run().exit_code != 0, "a run without room ended well")
        world.queue.pass_time(_HELD_SECONDS)
    _must_not_receive(world)
    world.must(not world.queue.on_queue(DEAD), "messages are on the dead-letter queue")
    world.administer("DROP TRIGGER full_disk ON user_logins")


def _must_try(world: World, *, is_again: bool) -> None:
    """For a trigger that strikes at the first row of every attempt."""
    with psycopg.connect(world.database_url) as connection:
        [(strikes,)] = connection.execute("SELECT last_value FROM public.strikes").fetchall()
    world.must(strikes <= _MAX_ATTEMPTS, f"it was tried {strikes} times")
    world.must(strikes > 1 or not is_again, "it was not tried again")


def _refused_row(*statements: str) -> Bring:
    """The table refuses the login of `user-3`."""

    def bring(world: World, _dice: random.Random) -> None:
        world.administer(*statements)
        world.must(world.run().exit_code == 0, "one refused row failed the run")
        quarantined = len(world.evidence().quarantine)
        world.must(quarantined == 4, "it is not three broken messages and one refused row")

    return bring


def _too_many_connections(world: World, _dice: random.Random) -> None:
    role = world.loader_url.partition("://")[2].partition(":")[0]

    def limit(_event: Event) -> WireAction:
        world.administer(f"ALTER ROLE {role} CONNECTION LIMIT 0")
        return WireAction.CUT

    world.wire.on(Moment.COPY_DATA, limit, nth=1, within=ROWS)
    ended = world.run()
    world.must(ended.exit_code != 0, "a run without a connection ended well")
    _must_hand_back(world, signal.SIGTERM, "without a connection")
    world.administer(f"ALTER ROLE {role} CONNECTION LIMIT -1")


def _lock_timeout(world: World, _dice: random.Random) -> None:
    with _holding(world, "LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE") as holder:
        running = world.start()
        # Longer than the product's lock time-out, so that one attempt fails of it.
        _wait_for_locks(world)
        _sleep_or_end(running, 40)
        world.must(running.process.poll() is None, "it gave up after one lock time-out")
        holder.rollback()
    world.must(world.end(running).exit_code == 0, "a lock time-out was not mended")


def _deadlock(world: World, _dice: random.Random) -> None:
    threads: list[threading.Thread] = []
    with _holding(
        world,
        "SET deadlock_timeout = '30s'",
        "LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE",
    ) as holder:

        def cross(_event: Event) -> None:
            threads.append(threading.Thread(target=_lock_ledger, args=(holder,)))
            threads[0].start()
            _wait_for_locks(world)

        world.wire.on(Moment.STATEMENT, cross, nth=1, within=ROWS)
        ended = world.run()
    for thread in threads:
        thread.join()
    world.must(bool(threads), "the copy was not seen")
    world.must(ended.exit_code == 0, "a deadlock was not mended")


def _lock_ledger(holder: psycopg.Connection) -> None:
    # Waits for the product's transaction, which waits for the table that the holder has locked.
    holder.execute("LOCK TABLE login_ingest.ledger IN SHARE MODE")
    holder.rollback()


@contextmanager
def _holding(world: World, *statements: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(world.database_url) as holder:
        for statement in statements:
            holder.execute(statement.encode())
        yield holder
        holder.rollback()


def _wait_for_locks(world: World) -> None:
    give_up = time.monotonic() + _LOCK_WAIT_SECONDS
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        while time.monotonic() < give_up:
            [(count,)] = connection.execute(_WAITING).fetchall()
            if count:
                return
            time.sleep(0.05)
    world.must(False, "nothing waits for a lock")  # noqa: FBT003 (a fact)


_ROLLED_BACK = "40"
"""The class of SQLSTATEs that another attempt may not meet."""
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


# Keys, disks, clocks, several at once


def _keys_missing(world: World, _dice: random.Random) -> None:
    aside = world.keysets.rename(world.keysets.with_name("aside"))
    world.must(world.run().exit_code != 0, "a run without keys ended well")
    _must_not_receive(world)
    aside.rename(world.keysets)


def _other_keys(world: World, _dice: random.Random) -> None:
    world.run()
    world.queue.calls.clear()
    world.send(8)
    others = world.keysets.with_name("others")
    create_keysets(others)
    world.must(world.run(MASKING_KEYSETS=str(others)).exit_code != 0, "other keys ended well")
    _must_not_receive(world)


def _rotated_between_runs(world: World, _dice: random.Random) -> None:
    world.run()
    _rotate(world)
    world.send(24)
    world.must(world.run().exit_code == 0, "a run with a rotated key failed")


def _rotated_between_workers(world: World, _dice: random.Random) -> None:
    old = world.keysets.with_name("old")
    shutil.copytree(world.keysets, old)
    held, go_on = threading.Event(), threading.Event()

    def hold(_event: Event) -> None:
        held.set()
        go_on.wait(_LOCK_WAIT_SECONDS)

    # A worker with the old keys is under way while another one starts with the new ones.
    world.wire.on(Moment.STATEMENT, hold, nth=1, within=LEDGER)
    earlier = world.start(MASKING_KEYSETS=str(old))
    world.must(held.wait(_LOCK_WAIT_SECONDS), "the first worker did not come to its commit")
    _rotate(world)
    world.send(24)
    later = world.run()
    go_on.set()
    world.must(later.exit_code == 0, "the worker with the new key failed")
    world.must(world.end(earlier).exit_code == 0, "the worker with the old key failed")


def _rotate(world: World) -> None:
    ended = world.run(
        "keys", "rotate", "--yes", "--json", LOGIN_RECOVERY_DATABASE_URL=world.database_url
    )
    world.must(ended.exit_code == 0, "the keys could not be rotated")


def _local_disk_full(world: World, _dice: random.Random) -> None:
    # No process of the shell may write a byte to any file: standard output is a pipe there, and
    # the pipe ends as the product does.
    script = 'set -o pipefail; (ulimit -f 0; exec "$@") 2>&1 | cat >&2'
    ended = world.run(under=("/usr/bin/env", "bash", "-c", script, "bash"))
    world.must(ended.exit_code != 0, "a full disk ended well")
    world.must("Error: Dagster's storage cannot be used" in ended.said, "a full disk is not said")
    _must_not_receive(world)


def _other_days(world: World, _dice: random.Random) -> None:
    now = world.queue.now()
    for days in (-400, -1, 1):
        world.send(8, sent_at=now + days * _DAY_SECONDS)
    world.must(world.run().exit_code == 0, "messages of other days failed")


def _two_runs_at_once(world: World, _dice: random.Random) -> None:
    world.send(176)
    both = [world.start(LOGIN_BATCH_MESSAGES="20") for _ in range(2)]
    for running in both:
        ended = world.end(running)
        world.must(ended.exit_code == 0, f"one of two runs failed: {ended.said[-300:]}")


def _run_again(world: World, _dice: random.Random) -> None:
    for _ in range(2):
        world.must(world.run().exit_code == 0, "a repeated run failed")


_ROW_KILLED = "killed at a point of a run"
_ROW_TERM = "SIGTERM at the same points"
_ROW_COMMIT = "the answer to COMMIT is lost, committed or not"
_ROW_DOWN = "the database is down before the start"
_ROW_AWAY = "the database goes away in the middle of a batch, or fails over"
_ROW_LOCKS = "deadlock, serialisation failure, lock time-out"
_ROW_FULL = "disk full, read-only, too many connections"
_ROW_REFUSED = "a row that the database refuses for an unforeseen reason"
_ROW_DELETE = "the delete of a batch answers 200 with failed entries"
_ROW_SQS = "throttling, 500s, time-outs, resets from SQS on each call"
_ROW_RECEIVE = "the receive's answer is lost"
_ROW_VISIBILITY = "visibility runs out; two consumers hold one message"
_ROW_FIVE = "each message delivered five times, out of order"
_ROW_EMPTY = "a receive returns nothing although there is a backlog"
_ROW_DENIED = "the queue is deleted or access to it denied"
_ROW_KEYS = "the keys are missing, unreadable, or others under the same name"
_ROW_ROTATED = "a key is rotated between two runs, and between two workers"
_ROW_DISK = "local disk full or read-only"
_ROW_CLOCK = "clock steps of a day"
_ROW_TWICE = "two runs at once, a step retried, a run executed again from the page"

_EVERY_CALL = (
    Fault(kind=FaultKind.REFUSED, calls=(1, 6), chance=0.15, code="ThrottlingException"),
    Fault(kind=FaultKind.SLOW, calls=(2, 7), chance=0.15, seconds=0.3),
    Fault(kind=FaultKind.RESET, calls=(3, 8), chance=0.1),
    Fault(kind=FaultKind.LOST, calls=(4, 9), chance=0.1),
    Fault(kind=FaultKind.LAG, operation="GetQueueAttributes", chance=0.5, seconds=60),
)


def _entries(*, is_senders: bool) -> Fault:
    return Fault(
        kind=FaultKind.ENTRIES,
        operation="DeleteMessageBatch",
        calls=(1,),
        chance=0.6,
        is_senders_fault=is_senders,
    )


def _refusals(code: str) -> Fault:
    return Fault(kind=FaultKind.REFUSED, calls=(1,), chance=0.3, code=code)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("SIGKILL at every point, one after the other", _ROW_KILLED, _kill_at_every_point),
    *(
        Scenario(f"SIGKILL {point.name}", _ROW_KILLED, _signal_at(point, signal.SIGKILL))
        for point in KILL_POINTS
    ),
    Scenario("SIGKILL while masking", _ROW_KILLED, _signal_while_masking(signal.SIGKILL)),
    Scenario("SIGKILL at random times", _ROW_KILLED, _signal_at_random(signal.SIGKILL)),
    *(
        Scenario(
            f"SIGTERM {point.name}",
            _ROW_TERM,
            _signal_at(point, signal.SIGTERM),
        )
        for point in KILL_POINTS
    ),
    Scenario("SIGTERM while masking", _ROW_TERM, _signal_while_masking(signal.SIGTERM)),
    Scenario("SIGTERM at random times", _ROW_TERM, _signal_at_random(signal.SIGTERM)),
    *(
        Scenario(f"{moment}, {order}", _ROW_COMMIT, _commit_meets(moment, order))
        for moment in (Moment.COMMIT_SENT, Moment.COMMIT_ANSWERED)
        for order in (WireAction.CUT, WireAction.RESET)
    ),
    Scenario("connections are refused", _ROW_DOWN, _database_down),
    Scenario("the server is stopped", _ROW_DOWN, _stopped),
    Scenario(
        "240 ticks of the sensor without a database",
        _ROW_DOWN,
        dagster_runs.hour_without_database,
    ),
    Scenario("cut in the copy, once", _ROW_AWAY, _goes_away(WireAction.CUT, for_good=False)),
    Scenario("reset in the copy, and away", _ROW_AWAY, _goes_away(WireAction.RESET, for_good=True)),
    Scenario("restarted in the copy", _ROW_AWAY, _restart),
    Scenario("fails over to a read-only server", _ROW_AWAY, _fails_over_to_read_only),
    Scenario("breaks on the way there", _ROW_AWAY, _wire_breaks(Direction.TO_SERVER, 8_000)),
    Scenario("breaks on the way back", _ROW_AWAY, _wire_breaks(Direction.TO_CLIENT, 3_000)),
    Scenario("slow", _ROW_AWAY, _slow_wire),
    Scenario("a deadlock, once", _ROW_LOCKS, _deadlock),
    Scenario(
        "serialisation failures, injected by a trigger",
        _ROW_LOCKS,
        _injected("40001", 2, ends_well=True),
    ),
    Scenario(
        "serialisation failures for good, injected by a trigger",
        _ROW_LOCKS,
        _injected("40001", None, ends_well=False),
    ),
    Scenario("a lock held for longer than the time-out", _ROW_LOCKS, _lock_timeout),
    Scenario(
        "disk full, injected by a trigger", _ROW_FULL, _injected("53100", None, ends_well=False)
    ),
    Scenario("disk full for more runs than a message has receives", _ROW_FULL, _refuses_writes),
    Scenario(
        "40 ticks of the sensor on a read-only server",
        _ROW_FULL,
        dagster_runs.minutes_on_read_only,
    ),
    Scenario("too many connections, from the copy on", _ROW_FULL, _too_many_connections),
    Scenario(
        "one row breaks a new constraint",
        _ROW_REFUSED,
        _refused_row(
            "ALTER TABLE user_logins ADD CONSTRAINT unforeseen CHECK (user_id <> 'user-3')"
        ),
    ),
    Scenario(
        "one row is refused by a trigger of its own mind",
        _ROW_REFUSED,
        _refused_row(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION '%', NEW; END $$",
            "CREATE TRIGGER refuse BEFORE INSERT ON user_logins"
            " FOR EACH ROW WHEN (NEW.user_id = 'user-3') EXECUTE FUNCTION refuse()",
        ),
    ),
    Scenario(
        "one row breaks a deferred constraint",
        _ROW_REFUSED,
        _refused_row(
            "CREATE TABLE known AS SELECT 'user-' || n AS id FROM generate_series(0, 99) AS n",
            "DELETE FROM known WHERE id = 'user-3'",
            "ALTER TABLE known ADD PRIMARY KEY (id)",
            "ALTER TABLE user_logins ADD FOREIGN KEY (user_id) REFERENCES known"
            " DEFERRABLE INITIALLY DEFERRED",
        ),
    ),
    Scenario(
        "failed entries, the service's fault",
        _ROW_DELETE,
        _queue_meets(_entries(is_senders=False), runs=2),
    ),
    Scenario(
        "failed entries, the sender's fault",
        _ROW_DELETE,
        _queue_meets(_entries(is_senders=True), runs=2),
    ),
    *(
        Scenario(f"{code} on any call", _ROW_SQS, _queue_meets(_refusals(code), runs=2))
        for code in (
            "ThrottlingException",
            "RequestThrottled",
            "InternalError",
            "ServiceUnavailable",
        )
    ),
    Scenario("everything on any call", _ROW_SQS, _queue_meets(*_EVERY_CALL, runs=3)),
    Scenario(
        "a call that never answers in time",
        _ROW_SQS,
        _queue_meets(
            Fault(kind=FaultKind.SLOW, operation="ReceiveMessage", calls=(1,), seconds=20)
        ),
    ),
    Scenario(
        "lost answers",
        _ROW_RECEIVE,
        _queue_meets(
            Fault(kind=FaultKind.LOST, operation="ReceiveMessage", calls=(1,), chance=0.4), runs=2
        ),
    ),
    Scenario("two consumers", _ROW_VISIBILITY, _early_visibility),
    Scenario("five deliveries, shuffled", _ROW_FIVE, _five_deliveries),
    Scenario("empty and partial answers", _ROW_EMPTY, _empty_answers),
    Scenario("the in-flight limit is reached", _ROW_EMPTY, _in_flight_limit),
    Scenario("access is denied", _ROW_DENIED, _refused_for_good("AccessDenied")),
    Scenario("no such queue", _ROW_DENIED, _refused_for_good("QueueDoesNotExist")),
    Scenario("deletes denied", _ROW_DENIED, _refused_after_receiving),
    Scenario("keys missing", _ROW_KEYS, _keys_missing),
    Scenario("keys that others may read", _ROW_KEYS, machine.keys_of_mode(0o644)),
    Scenario("keys that cannot be read", _ROW_KEYS, machine.keys_of_mode(0o000)),
    Scenario("other keys", _ROW_KEYS, _other_keys),
    Scenario("rotated between two runs", _ROW_ROTATED, _rotated_between_runs),
    Scenario("rotated between two workers", _ROW_ROTATED, _rotated_between_workers),
    Scenario("no file can be written", _ROW_DISK, _local_disk_full),
    Scenario("read-only from the start", _ROW_DISK, machine.read_only_files),
    Scenario("read-only from the copy on", _ROW_DISK, machine.read_only_in_the_copy),
    Scenario("days before and after", _ROW_CLOCK, _other_days),
    *(
        Scenario(f"the clock is a day off, {step}", _ROW_CLOCK, machine.clock_is_off(step))
        for step in ("-1d", "+1d")
    ),
    *(
        Scenario(f"the clock steps in the copy, {step}", _ROW_CLOCK, machine.clock_steps(step))
        for step in ("-1d", "+1d")
    ),
    Scenario("two runs at once", _ROW_TWICE, _two_runs_at_once),
    Scenario("a run repeated", _ROW_TWICE, _run_again),
    Scenario("a run executed again from the page", _ROW_TWICE, dagster_runs.executed_again),
    Scenario("a failed step retried from the page", _ROW_TWICE, dagster_runs.step_retried),
)
