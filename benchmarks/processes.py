"""Processes that do the work of a round, and the CPU, time and memory of each."""

from __future__ import annotations

import json
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.worker import PROFILED_FUNCTIONS

CHECKOUT = Path(__file__).parents[1]
RIVALS_PYTHON = CHECKOUT / ".benchmark-venv/bin/python"


@dataclass(frozen=True, slots=True)
class Usage:
    """The CPU, time and memory of one round; `messages` is None if they are not counted."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    messages: int | None = None


class Runner(Protocol):
    """A process, or a way to start one, that does the work of a round.

    Each method raises `RuntimeError` if the work failed; its output is on standard error.
    """

    def run(self) -> Usage:
        """Does the work once."""

    def profile(self) -> None:
        """Does the work once under a profiler, which prints to standard error."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A running `benchmarks.worker`."""

    process: subprocess.Popen[str]

    def start(self) -> None:
        """Starts a round, whose end `finish` awaits."""
        self._order("measure")

    def finish(self) -> Usage:
        """Awaits the end of a round.

        Raises:
            RuntimeError: the work failed; its traceback is on standard error.
        """
        return Usage(**json.loads(self._answer()))

    def run(self) -> Usage:
        """Does one round.

        Raises:
            RuntimeError: the work failed; its traceback is on standard error.
        """
        self.start()
        return self.finish()

    def profile(self) -> None:
        """Does one round under a profiler, which prints to standard error.

        Raises:
            RuntimeError: the work failed; its traceback is on standard error.
        """
        self._order("profile")
        self._answer()

    def _order(self, order: str) -> None:
        assert self.process.stdin  # noqa: S101 (opened by `running_worker`)
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()

    def _answer(self) -> str:
        assert self.process.stdout  # noqa: S101 (opened by `running_worker`)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("a contender failed: its traceback is above")
        return answer


@dataclass(frozen=True, slots=True)
class Together:
    """Several workers, each of which does a round at the same time."""

    workers: Sequence[Worker]

    def run(self) -> Usage:
        """Does one round with all of them; the peaks are added up."""
        started = time.perf_counter()
        for worker in self.workers:
            worker.start()
        usages = [worker.finish() for worker in self.workers]
        return Usage(
            cpu_seconds=sum(each.cpu_seconds for each in usages),
            wall_seconds=time.perf_counter() - started,
            peak_bytes=sum(each.peak_bytes for each in usages),
        )

    def profile(self) -> None:
        """Profiles one of them."""
        self.workers[0].profile()


@contextmanager
def running_worker(python: Path, module: str, environment: Mapping[str, str]) -> Iterator[Worker]:
    """A worker for a module; it ends with the block."""
    command = [str(python), "-m", "benchmarks.worker", module]
    with subprocess.Popen(  # noqa: S603 (our own module)
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=environment["DAGSTER_HOME"],
    ) as process:
        yield Worker(process)
        # The end of its input ends it.


@dataclass(frozen=True, slots=True)
class Command:
    """A program of this environment that does one round and ends."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    def run(self) -> Usage:
        """Runs the program.

        Raises:
            RuntimeError: its exit code is not 0; its output is on standard error.
        """
        program, *options = self.arguments
        done = self._run("-m", "benchmarks.command", _path_of(program), *options)
        return Usage(**json.loads(done))

    def profile(self) -> None:
        """Runs the program under a profiler.

        Raises:
            RuntimeError: its exit code is not 0; its output is on standard error.
        """
        program, *options = self.arguments
        with tempfile.NamedTemporaryFile() as file:
            self._run("-m", "cProfile", "-o", file.name, _path_of(program), *options)
            statistics = pstats.Stats(file.name, stream=sys.stderr)
        statistics.sort_stats("cumulative").print_stats(PROFILED_FUNCTIONS)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 (our own programs)
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.environment["DAGSTER_HOME"],
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{self.arguments[0]} failed: its output is above")
        return done.stdout


def _path_of(program: str) -> str:
    return str(Path(sys.executable).parent / program)
