"""What a scenario works with: a harsh queue, a wire, a database, keys, and real processes.

Belongs here: starting the product as a user starts it, and gathering what is to be seen afterwards.
Does not belong here: faults (`scenarios`), and what must hold (`invariants`).
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from benchmarks.sqs_simulator.harsh_queue import HarshQueue
from benchmarks.sqs_simulator.queue_faults import FaultPlan
from benchmarks.sqs_simulator.sqs_protocol import Call
from fetch_mask_assets.keys.storage import create_keysets, read_keyring
from fetch_mask_assets.local_stack import environment as local_environment
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets_tests.chaos import tables
from fetch_mask_assets_tests.chaos.invariants import Claim, Ended, Evidence, Sent
from fetch_mask_assets_tests.chaos.wire import Wire, WirePlan
from fetch_mask_assets_tests.support import commands
from fetch_mask_assets_tests.support.canaries import raw_values
from fetch_mask_assets_tests.support.commands import FETCH_MASK, Command, Streams
from fetch_mask_assets_tests.support.people import person

INGEST = ("ingest", "--json", "--no-wait")
QUEUE = "logins"
DEAD = "dead-letters"
LOADER = "login_ingest_loader"
IP_CANARY = "203.0.113."
DEVICE_CANARY = "canary-device-"
MAX_SECONDS = 180

_QUICK = {
    "LOGIN_VISIBILITY_SECONDS": "60",
    "LOGIN_BATCH_SECONDS": "10",
    "LOGIN_BATCH_MESSAGES": "100",
    "LOGIN_RECEIVE_WAIT_SECONDS": "1",
    "LOGIN_MAX_EMPTY_RECEIVES": "2",
}
_CANARIES = (IP_CANARY, DEVICE_CANARY)
_DRAINS = 4
_MEMORY_INTERVAL_SECONDS = 0.05
# Settings that take effect when an interpreter starts.
_OF_ITS_INTERPRETER = frozenset({"LD_PRELOAD", "PYTHONPATH"})


class MissingProgramError(Exception):
    """A program that a scenario needs is not on this machine."""

    def __init__(self, program: str) -> None:
        """Names it."""
        super().__init__(f"needs the program {program}")


@dataclass(eq=False, slots=True)
class Running:
    """A process of the product, and where it prints."""

    process: subprocess.Popen[bytes] | Command
    output: Path
    errors: Path
    started: float
    recorded_before: Mapping[str, int] = field(default_factory=dict)
    """What the batch records came to when it started."""
    counts_itself: bool = False
    """Whether it is an ingestion that prints what it did."""
    is_without_database: bool = False
    """Whether it started without one within reach."""
    signalled: signal.Signals | None = None
    """What was sent to it last, while it ran."""
    peak_memory_mib: float = 0.0
    """Largest resident set seen so far."""

    def kill(self, by: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal."""
        if self.process.poll() is None:
            self.signalled = by
            self._note_memory()
            self.process.send_signal(by)

    def wait(self, seconds: float = MAX_SECONDS) -> Ended:
        """How it ended; one that does not end in time is killed, and counts as hung."""
        is_hung = not self._ends_within(seconds)
        if is_hung:
            self.kill()
        code = self.process.wait(30)
        said = (self.output.read_text() + self.errors.read_text()).strip()
        seconds = time.monotonic() - self.started
        return Ended(code, said, self.signalled, seconds, is_hung)

    def _ends_within(self, seconds: float) -> bool:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            self._note_memory()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_MEMORY_INTERVAL_SECONDS)
                return True
        return False

    def _note_memory(self) -> None:
        with suppress(OSError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            kib = (int(found) for found in re.findall(r"VmHWM:\s+(\d+) kB", status))
            self.peak_memory_mib = max(self.peak_memory_mib, *(each / 1024 for each in kib), 0.0)


@dataclass(eq=False)
class World:
    """A pipeline of a scenario's own; `must` collects what the scenario itself found wrong."""

    stack: Stack
    directory: Path
    queue: HarshQueue
    wire: Wire
    database_url: str = field(repr=False)
    """Past the wire, as an administrator."""
    loader_url: str = field(repr=False)
    """By way of the wire, as the loader."""
    keysets: Path
    sent: dict[str, Sent] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    deleted_uncommitted: list[str] = field(default_factory=list)
    peak_memory_mib: float = 0.0
    _recorded: dict[str, int] = field(default_factory=dict)
    visibility: int = int(_QUICK["LOGIN_VISIBILITY_SECONDS"])

    def must(self, holds: bool, sentence: str) -> None:  # noqa: FBT001 (a fact)
        """Notes what does not hold."""
        if not holds:
            self.broken.append(sentence)

    def send(self, count: int = 24, *, sent_at: float | None = None) -> list[str]:
        """Sends logins, some with equal values, and for each eight one that breaks the contract."""
        first = len(self.sent)
        messages = [_message(number) for number in range(first, first + count)]
        ids = self.queue.send(QUEUE, [body for body, _ in messages], sent_at=sent_at)
        for message_id, (_, login) in zip(ids, messages, strict=True):
            day = self.queue.lives[message_id].sent_on
            self.sent[message_id] = Sent(*login, day) if login else Sent()
        return ids

    def start(self, *arguments: str, under: Sequence[str] = (), **settings: str) -> Running:
        """Starts `fetch-mask`, as a user does; an ingestion unless told otherwise."""
        return self.start_driver(*under, FETCH_MASK, *(arguments or INGEST), **settings)

    def start_driver(self, *command: str, **settings: str) -> Running:
        """Starts any command, in the environment of the product."""
        name, before = uuid4().hex[:8], self.recorded()
        output, errors = self.directory / f"{name}.out", self.directory / f"{name}.err"
        environment = {**self.settings(), **settings}
        if command[0] == FETCH_MASK and _OF_ITS_INTERPRETER.isdisjoint(environment):
            process: subprocess.Popen[bytes] | Command = commands.start(
                *command[1:],
                env=environment,
                cwd=self.directory,
                streams=Streams(stdout=output, stderr=errors),
            )
        else:
            with output.open("wb") as out, errors.open("wb") as err:
                process = subprocess.Popen(  # noqa: S603 (our own programs)
                    command,
                    env=environment,
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                )
        return Running(
            process,
            output,
            errors,
            time.monotonic(),
            before,
            counts_itself={"ingest", "--json"} <= set(command),
            is_without_database=self.wire.is_refusing,
        )

    def end(self, running: Running, seconds: float = MAX_SECONDS) -> Ended:
        """Waits for a process and remembers how it ended."""
        ended = running.wait(seconds)
        self.ended.append(ended)
        self.peak_memory_mib = max(self.peak_memory_mib, running.peak_memory_mib)
        if running.counts_itself:
            self.claims.append(self._claim(running, ended))
        return ended

    def run(self, *arguments: str, under: Sequence[str] = (), **settings: str) -> Ended:
        """Starts `fetch-mask` and waits for its end."""
        return self.end(self.start(*arguments, under=under, **settings))

    def settings(self) -> dict[str, str]:
        """The environment of a process."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        home = {
            "DAGSTER_HOME": str(self.directory / "dagster"),
            "TMPDIR": str(self.directory / "tmp"),
        }
        places = {
            "LOGIN_DATABASE_URL": self.loader_url,
            "MASKING_KEYSETS": str(self.keysets),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }
        return {**own, **home, **_QUICK, **self.queue.environment(QUEUE), **places}

    def administer(self, *statements: str) -> None:
        """Executes statements as the administrator, past the wire."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def recorded(self) -> dict[str, int]:
        """What all batch records come to, as far as they could be read last."""
        with suppress(psycopg.OperationalError):
            self._recorded = tables.recorded(self.database_url)
        return self._recorded

    def committed(self) -> set[str]:
        """The message ids of the ledger."""
        return set(tables.ledger(self.database_url))

    def end_faults(self) -> None:
        """No fault and no hook any more; what is hidden shows."""
        self.queue.forget_hooks()
        self.wire.forget_hooks()
        self.queue.plan, self.wire.plan = FaultPlan(), WirePlan()
        self.wire.is_refusing = False
        self.queue.pass_time(12 * 3600)
        self.watch_deletes()

    def watch_deletes(self) -> None:
        """From now on, each delete is checked against the ledger before it takes effect."""
        self.queue.on("DeleteMessageBatch", self._check_delete)

    def drain(self) -> None:
        """Ingests until nothing is left on the queue, for a bounded number of times."""
        for _ in range(_DRAINS):
            # After a kill, a next run has to say that the one before is dead.
            ok = bool(self.ended) and self.ended[-1].exit_code == 0
            if ok and not self.queue.counts(QUEUE).all:
                return
            self.run()
            self.queue.pass_time(12 * 3600)

    def evidence(self) -> Evidence:
        """All that is to be seen."""
        url, rows = self.database_url, tables.rows(self.database_url, read_keyring(self.keysets))
        return Evidence(
            sent=self.sent,
            on_queue=frozenset(self.queue.on_queue(QUEUE)),
            dead=frozenset(self.queue.on_queue(DEAD)),
            deleted=frozenset(self.queue.deleted()),
            handed_out=self.queue.handed_out(),
            deleted_uncommitted=tuple(self.deleted_uncommitted),
            ledger=tables.ledger(url),
            rows=rows,
            quarantine=tables.quarantine(url),
            batches=tables.batches(url),
            opened_with_other_keys=tables.opened_with_other_keys(rows),
            leaks=self._leaks(),
            replayed=tables.replayed(url),
            ended=tuple(self.ended),
            runs=self._runs(),
            claims=tuple(self.claims),
            memory_mib=self.peak_memory_mib,
        )

    def _claim(self, running: Running, ended: Ended) -> Claim:
        before = running.recorded_before
        return Claim(
            is_green=ended.exit_code == 0,
            could_not_be=running.is_without_database and self.wire.is_refusing,
            description=printed(ended),
            recorded={name: now - before.get(name, 0) for name, now in self.recorded().items()},
        )

    def _check_delete(self, call: Call) -> None:
        self.deleted_uncommitted += set(call.message_ids) - self.committed()

    def _leaks(self) -> dict[str, int]:
        places: Mapping[str, Iterable[Path]] = {
            "its own files, standard output and error": self.directory.rglob("*"),
            "the database's log": (self.stack.layout.postgres / "server.log",),
        }
        found = {
            where: sum(raw_values(path.read_bytes(), _CANARIES) for path in paths if path.is_file())
            for where, paths in places.items()
        }
        in_tables = tables.raw_values(self.database_url, _CANARIES)
        return {**found, "the database's tables": in_tables}

    def _runs(self) -> dict[str, str]:
        path = self.directory / "dagster" / "history" / "runs.db"
        if not path.exists():
            return {}
        with closing(sqlite3.connect(path)) as connection:
            return dict(connection.execute("SELECT run_id, status FROM runs"))


@contextmanager
def make_world(stack: Stack, directory: Path) -> Iterator[World]:
    """A world of its own, with a database, a login role, queues and keys."""
    for name in ("dagster", "tmp"):
        (directory / "home" / name).mkdir(parents=True)
    create_keysets(directory / "keysets")
    with (
        _database(stack) as url,
        person(url, LOADER) as loader,
        HarshQueue() as queue,
        Wire(url) as wire,
    ):
        queue.create(QUEUE, dead_letters=DEAD, max_receives=20)
        keysets, home = directory / "keysets", directory / "home"
        world = World(stack, home, queue, wire, url, wire.url(loader.url), keysets)
        world.watch_deletes()
        yield world
        # The database cannot be dropped while it refuses connections, nor the role while it owns.
        wire.break_all()
    if queue.errors or wire.errors:
        raise ExceptionGroup(
            "The harness itself failed", [*_plain(queue.errors), *_plain(wire.errors)]
        )


def printed(ended: Ended) -> dict[str, Any]:
    """The last line that is a JSON object, of all that a process printed; empty without one."""
    lines = [line for line in ended.said.splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1])) if lines else {}


def _plain(errors: Sequence[BaseException]) -> list[Exception]:
    return [error if isinstance(error, Exception) else Exception(str(error)) for error in errors]


@contextmanager
def _database(stack: Stack) -> Iterator[str]:
    name = f"chaos_{uuid4().hex}"
    owner = postgres.url(stack.state, postgres.OWNER)
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {local_environment.LOGINS}".encode())
    try:
        yield postgres.url(stack.state, name)
    finally:
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _message(number: int) -> tuple[str, tuple[str, str, str] | None]:
    """A body, and the login's user, IP and device; every eighth breaks the contract."""
    ip, device = f"{IP_CANARY}{number % 50}", f"{DEVICE_CANARY}{number % 90:04}"
    if number % 8 == 7:
        return json.dumps({"ip": ip, "device_id": device}), None
    login = {
        "user_id": f"user-{number}",
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": ip,
        "locale": None,
        "device_id": device,
    }
    return json.dumps(login), (f"user-{number}", ip, device)
