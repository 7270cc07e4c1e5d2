"""`fetch-mask` as a process of its own, forked from one that has already imported the product.

Importing Dagster and the product takes seconds, and the tests start a hundred commands. A fork
server pays for the imports once. The process is real: it can be killed, has its own environment,
working directory and standard streams, and runs the entry point of the command line.

Tests that need an interpreter of their own (PYTHONPATH, LD_PRELOAD, a wrapper) use `subprocess`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from pydoc import locate
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

FETCH_MASK = str(Path(sys.executable).parent / "fetch-mask")

# Not fetch_mask_assets.definitions: it reads the environment when it is imported.
PRELOADED = (
    "alembic.command",
    "boto3",
    "dagster",
    "dagster_postgres",
    "dotenv",
    "rich.console",
    "fetch_mask_assets.cli.main",
    "fetch_mask_assets.cli.pipeline.ingest_runs",
    "fetch_mask_assets.defs.assets",
    "fetch_mask_assets.defs.checks",
    "fetch_mask_assets.defs.jobs",
    "fetch_mask_assets.defs.resources",
    "fetch_mask_assets.defs.sensor",
    "fetch_mask_assets.defs.operations.report",
)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(PRELOADED))


def nothing() -> None:
    """Prepare nothing before a command."""


@dataclass(frozen=True)
class KilledAt:
    """Makes a process kill itself when it calls the function of this qualified name."""

    target: str

    def __call__(self) -> None:
        """Replace the function."""
        where, _, name = self.target.rpartition(".")
        setattr(locate(where), name, _kill_this_process)


def _kill_this_process(*_inputs: object, **_named: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Command:
    """A running `fetch-mask`. The interface is that of `subprocess.Popen`, as far as needed."""

    def __init__(self, process: BaseProcess, arguments: tuple[str, ...]) -> None:
        """Take a process that was started; `start` makes one."""
        self._process = process
        # The exit code can be read once: a thread may poll while another waits.
        self._lock = threading.Lock()
        self.args = arguments

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""
        with self._lock:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code.

        Raises:
            subprocess.TimeoutExpired: the process still runs after `timeout` seconds.
        """
        connection.wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        """Return the command itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Wait for the end."""
        self.wait()


@dataclass(frozen=True)
class Streams:
    """Files that a process reads and writes as its standard streams."""

    stdin: Path = Path(os.devnull)
    stdout: Path = Path(os.devnull)
    stderr: Path = Path(os.devnull)


_NO_STREAMS = Streams()


def start(
    *arguments: str,
    env: Mapping[str, str],
    cwd: Path,
    streams: Streams = _NO_STREAMS,
    prepare: Callable[[], object] = nothing,
) -> Command:
    """Start `fetch-mask` with these arguments.

    Args:
        arguments: words of the command line, without the program.
        env: the whole environment.
        cwd: working directory.
        streams: standard streams; without them, input is empty and output is discarded.
        prepare: picklable function that the process calls first, for example to patch the product.
    """
    for path in (streams.stdout, streams.stderr):
        path.touch(0o600)
    call = _Call(arguments, dict(env), cwd, streams, prepare)
    process = _CONTEXT.Process(target=call.run)
    process.start()
    return Command(process, (FETCH_MASK, *arguments))


def run(
    *arguments: str,
    env: Mapping[str, str],
    cwd: Path,
    stdin: bytes = b"",
    timeout: float = 300,
    prepare: Callable[[], object] = nothing,
) -> subprocess.CompletedProcess[str]:
    """Run `fetch-mask` to its end; return its exit code and both outputs as text.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    with tempfile.TemporaryDirectory() as directory:
        streams = Streams(*(Path(directory) / name for name in ("stdin", "stdout", "stderr")))
        streams.stdin.write_bytes(stdin)
        command = start(*arguments, env=env, cwd=cwd, streams=streams, prepare=prepare)
        try:
            code = command.wait(timeout)
        finally:
            command.kill()
        texts = (path.read_text(encoding="utf-8") for path in (streams.stdout, streams.stderr))
        return subprocess.CompletedProcess(command.args, code, *texts)


@dataclass(frozen=True)
class _Call:
    """A command line and the surroundings of its process."""

    arguments: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    directory: Path
    streams: Streams
    prepare: Callable[[], object]

    def run(self) -> None:
        """Run the command in this process, which was made for it."""
        self._set_up()
        from fetch_mask_assets.cli.main import main  # noqa: PLC0415 (in the new process)

        try:
            self.prepare()
            main()
        except Exception:  # noqa: BLE001 (as an interpreter does)
            sys.excepthook(*sys.exc_info())
            sys.exit(1)
        finally:
            atexit._run_exitfuncs()  # noqa: SLF001 (multiprocessing leaves them out)

    def _set_up(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        time.tzset()
        # Both were read from the environment of the fork server.
        tempfile.tempdir = None
        os.chdir(self.directory)
        _redirect(0, self.streams.stdin, os.O_RDONLY)
        _redirect(1, self.streams.stdout, _WRITE)
        _redirect(2, self.streams.stderr, _WRITE)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, "utf-8", "backslashreplace", closefd=False)
        sys.argv = [FETCH_MASK, *self.arguments]


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def _redirect(number: int, path: Path, flags: int) -> None:
    descriptor = os.open(path, flags, 0o600)
    os.dup2(descriptor, number)
    os.close(descriptor)
