"""`dagster dev` on the local stack with traffic, and an end that leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dotenv import dotenv_values

from fetch_mask_assets.local_stack import stack as local_stack
from fetch_mask_assets.local_stack.errors import LocalStackError
from fetch_mask_assets.local_stack.processes import family, left_after, send, stop
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets.local_stack.state import LOOPBACK, is_free
from fetch_mask_assets.local_stack.traffic import Traffic

_USUAL_PORT = 3000
# A trickle never runs dry: batches end by time, and a person wants to see one end.
_FOR_WATCHING = {"LOGIN_BATCH_SECONDS": "10"}
_POLL_SECONDS = 0.2
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Dagster ends its own processes on SIGINT; whatever is left gets the stronger ones.
_PATIENCE_SECONDS = 30.0
_STOP_STEPS = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))


class StopRequest:
    """Whether someone asked for the end."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.is_made = False

    def make(self, _signal: int, _frame: FrameType | None) -> None:
        """Asks for the end; a signal handler."""
        self.is_made = True


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Notes the signals that ask for the end, also those that a script's `&` has switched off.

    A signal that has a handler here is at its default in a child, so Dagster sees it too.
    """
    request = StopRequest()
    before = {each: signal.signal(each, request.make) for each in _STOP_SIGNALS}
    try:
        yield request
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def running_stack(checkout: Path) -> Iterator[Stack]:
    """The stack, up; at the end down again, if it was not up before."""
    was_up = local_stack.is_up(checkout)
    try:
        yield local_stack.up(checkout)
    finally:
        if not was_up:
            local_stack.down(checkout, delete=False)


@contextmanager
def dagster_dev(stack: Stack, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`dagster dev`; at the end neither it nor anything it started is left."""
    process = subprocess.Popen(  # noqa: S603 (our own interpreter)
        [sys.executable, "-m", "dagster", "dev", "--host", LOOPBACK, "--port", str(port)],
        stdin=subprocess.DEVNULL,
        env=_environment(stack.layout.dotenv),
        cwd=stack.layout.checkout,
        umask=0o077,
        # Ctrl-C is for us to pass on, once; and the session tells whose child an orphan was.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)


def run_dev(stack: Stack, port: int, request: StopRequest) -> bool:
    """Runs `dagster dev` with traffic until someone asks for the end; False if it ended itself."""
    traffic = Traffic(stack.state, seed=time.time_ns())
    with dagster_dev(stack, port) as process:
        while not request.is_made and process.poll() is None:
            traffic.trickle()
            time.sleep(_POLL_SECONDS)
    return request.is_made


def usual_port() -> int:
    """A free port for Dagster's pages, as near above 3000 as there is one.

    Raises:
        LocalStackError: there is none among the first hundred.
    """
    for port in range(_USUAL_PORT, _USUAL_PORT + 100):
        if is_free(port):
            return port
    raise LocalStackError(f"No port is free from {_USUAL_PORT} on: give one with --port.")


def _end(process: subprocess.Popen[bytes]) -> None:
    known = family(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        _wait(process)
    left_after(1.0, known)
    if stop(known | family(process.pid), _STOP_STEPS):
        raise LocalStackError(
            "A process of dagster dev does not end; it is in uninterruptible I/O."
        )
    process.wait()


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        send(signal.SIGTERM, family(process.pid))


def _environment(dotenv: Path) -> dict[str, str]:
    # The user's own AWS settings must not lead the pipeline out of the local stack.
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    # The file rather than the stack's settings: the user may have tuned it.
    kept = {name: value for name, value in dotenv_values(dotenv).items() if value is not None}
    return {**_FOR_WATCHING, **own, **kept}
