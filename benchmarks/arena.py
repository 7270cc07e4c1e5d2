"""The surroundings of a measurement: a queue, databases, keysets, and contenders in turns.

A round that leaves a message on the queue, or a table without a row of each message, is refused:
only whole work is measured.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import psycopg

from benchmarks.databases import DatabaseKind, ServerCpu, scratch_database
from benchmarks.figures import ContenderResult, Round, StageResult
from benchmarks.processes import (
    CHECKOUT,
    RIVALS_PYTHON,
    Command,
    Runner,
    Together,
    running_worker,
)
from benchmarks.queue.client import Account, BenchmarkQueue, running_queue
from benchmarks.stages import Contender, Stage
from fetch_mask_assets import settings
from fetch_mask_assets.keys.storage import create_keysets

_NO_ACCOUNT = Account(waiting=0, in_flight=0, requests=0)


@dataclass(frozen=True, slots=True)
class Arena:
    """A Postgres server, the settings that all contenders share, and the size of a round."""

    server_url: str
    server_cpu: ServerCpu
    shared: Mapping[str, str]
    messages: int

    def environment(
        self, database_url: str, queue: BenchmarkQueue | None, messages: int
    ) -> dict[str, str]:
        """The environment of a contender with batches of so many messages."""
        return {
            **self.shared,
            **(queue.environment if queue else {}),
            settings.DATABASE_URL: database_url,
            "LOGIN_BATCH_MESSAGES": str(messages),
        }


@contextmanager
def open_arena(server_url: str, messages: int) -> Iterator[Arena]:
    """Keysets, a Dagster home and a database for its storage; all are gone at the end."""
    with (
        tempfile.TemporaryDirectory() as directory,
        scratch_database(server_url, DatabaseKind.EMPTY) as storage_url,
    ):
        home, keysets = Path(directory) / "dagster", Path(directory) / "keysets"
        home.mkdir()
        shutil.copy(str(files("fetch_mask_assets.local_stack") / "dagster.yaml"), home)
        create_keysets(keysets)
        shared = {
            **_inherited(),
            "PYTHONPATH": str(CHECKOUT),
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": storage_url.replace("postgresql:", "postgresql+psycopg2:", 1),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "LOGIN_MAX_RUNS": "1",
            # By default a large batch would end early on a busy machine.
            "LOGIN_BATCH_SECONDS": "240",
            settings.KEYSETS: str(keysets),
        }
        yield Arena(server_url, ServerCpu(server_url), shared, messages)


def _inherited() -> dict[str, str]:
    """The environment without settings of the product, which the measured ones replace."""
    ours = ("LOGIN_", "MASKING_", "AWS_", "DAGSTER_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def measure(arena: Arena, stage: Stage, rounds: int) -> StageResult:
    """Measures the contenders of a stage in turns: A B A B.

    Raises:
        RuntimeError: a contender failed, or did not do the whole work.
    """
    with open_seats(arena, stage) as seats:
        for seat in seats if stage.rounds else ():
            seat.round()
        turns = [[seat.round() for seat in seats] for _ in range(_rounds(stage, rounds))]
    contenders = (
        ContenderResult(seat.contender.name, tuple(each))
        for seat, each in zip(seats, zip(*turns, strict=True), strict=True)
    )
    return StageResult(stage.name, stage.title, tuple(contenders))


def profile(arena: Arena, stage: Stage) -> None:
    """Profiles the product in the second round of a stage.

    Raises:
        RuntimeError: it failed.
    """
    product = replace(stage, contenders=stage.contenders[:1])
    with open_seats(arena, product) as [seat]:
        seat.round()
        seat.fill()
        seat.runner.profile()


def is_installed(contender: Contender) -> bool:
    """Return whether the packages that the contender needs are installed."""
    return RIVALS_PYTHON.exists() or not contender.is_rival_package


@contextmanager
def open_seats(arena: Arena, stage: Stage, processes: int = 1) -> Iterator[list[Seat]]:
    """A seat for each contender of a stage that is installed.

    Args:
        arena: the surroundings.
        stage: its contenders are modules if there are several processes.
        processes: how many processes share the database of a contender and do a round at once.
    """
    with ExitStack() as stack:
        queue = stack.enter_context(running_queue(stage.queue)) if stage.queue else None
        yield [
            stack.enter_context(_seat(arena, stage, contender, queue, processes))
            for contender in filter(is_installed, stage.contenders)
        ]


def _rounds(stage: Stage, rounds: int) -> int:
    return max(1, round(stage.rounds * rounds))


@contextmanager
def _seat(
    arena: Arena, stage: Stage, contender: Contender, queue: BenchmarkQueue | None, processes: int
) -> Iterator[Seat]:
    messages = max(1, round(arena.messages * contender.share))
    sent = 0 if stage.is_empty else messages * processes
    with scratch_database(arena.server_url, contender.database) as url, ExitStack() as stack:
        environment = arena.environment(url, queue, messages)
        runner: Runner = Command(contender.command, environment)
        if contender.module:
            python = RIVALS_PYTHON if contender.is_rival_package else Path(sys.executable)
            worker = partial(running_worker, python, contender.module, environment)
            runner = Together([stack.enter_context(worker()) for _ in range(processes)])
        yield Seat(contender, runner, url, queue, arena.server_cpu, sent)


@dataclass(frozen=True, slots=True)
class Seat:
    """A contender with what it works on, and the number of messages of a round."""

    contender: Contender
    runner: Runner
    database_url: str
    queue: BenchmarkQueue | None
    server_cpu: ServerCpu
    messages: int

    def fill(self) -> None:
        """Puts the messages of a round on the queue."""
        if self.queue and self.messages:
            self.queue.fill(self.messages)

    def round(self) -> Round:
        """Measures one round."""
        self.fill()
        rows, before, stored = self._rows(), self._account(), self._stored_bytes()
        server_cpu = self.server_cpu.seconds()
        usage = self.runner.run()
        server_cpu = self.server_cpu.seconds() - server_cpu
        after = self._account()
        self._require_whole_work(after, self._rows() - rows)
        return Round(
            messages=self.messages,
            cpu_seconds=usage.cpu_seconds,
            wall_seconds=usage.wall_seconds,
            server_cpu_seconds=server_cpu,
            requests=after.requests - before.requests,
            peak_bytes=usage.peak_bytes,
            stored_bytes=self._stored_bytes() - stored,
        )

    def _account(self) -> Account:
        return self.queue.account() if self.queue else _NO_ACCOUNT

    def _rows(self) -> int:
        if not self.contender.table:
            return 0
        with psycopg.connect(self.database_url) as connection:
            [(table,)] = connection.execute(
                "SELECT to_regclass(%s)::text", [self.contender.table]
            ).fetchall()
            if table is None:  # a rival that makes its table has not made it yet
                return 0
            [(rows,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608 (Postgres quoted it)
        return int(rows)

    def _stored_bytes(self) -> int:
        with psycopg.connect(self.database_url) as connection:
            statement = "SELECT pg_database_size(current_database())"
            [(stored,)] = connection.execute(statement).fetchall()
        return int(stored)

    def _require_whole_work(self, account: Account, rows: int) -> None:
        left = account.waiting + account.in_flight
        expected = self.messages if self.contender.table else 0
        if left or rows != expected:
            raise RuntimeError(
                f"{self.contender.name}: {rows:,} rows of {expected:,} were written, and"
                f" {left:,} messages are left on the queue"
            )
