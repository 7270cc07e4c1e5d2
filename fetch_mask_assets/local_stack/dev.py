"""`dagster dev` on the local stack with sample traffic, and its complete shutdown."""

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
from fetch_mask_assets.local_stack.processes import send, session_processes, stop, wait_for_end
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets.local_stack.state import LOOPBACK, is_free
from fetch_mask_assets.local_stack.traffic import Traffic

_FIRST_PORT = 3000
# A trickle never runs dry, so batches end by time: a short one keeps the wait short.
_DEMO_SETTINGS = {"LOGIN_BATCH_SECONDS": "10"}
_POLL_SECONDS = 0.2
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Dagster ends its own processes on SIGINT; the rest get stronger signals.
_SHUTDOWN_SECONDS = 30.0
_STOP_STEPS = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))


class StopRequest:
    """Records whether a signal requested the shutdown."""

    def __init__(self) -> None:
        """Not requested yet."""
        self.is_requested = False

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """A signal handler."""
        self.is_requested = True


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Handles the signals that request the shutdown, also those that a script's `&` disables.

    A child has the default handlers, so Dagster gets these signals too.
    """
    request = StopRequest()
    before = {each: signal.signal(each, request.handle) for each in _STOP_SIGNALS}
    try:
        yield request
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def running_stack(checkout: Path) -> Iterator[Stack]:
    """The running stack; it is stopped at the end if it did not run before."""
    was_up = local_stack.is_up(checkout)
    try:
        yield local_stack.up(checkout)
    finally:
        if not was_up:
            local_stack.down(checkout, delete=False)


@contextmanager
def dagster_dev(stack: Stack, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`dagster dev`; at the end it and every process that it started have ended."""
    process = subprocess.Popen(  # noqa: S603 (our own interpreter)
        [sys.executable, "-m", "dagster", "dev", "--host", LOOPBACK, "--port", str(port)],
        stdin=subprocess.DEVNULL,
        env=_environment(stack.layout.dotenv),
        cwd=stack.layout.checkout,
        umask=0o077,
        # Ctrl-C is passed on once, and orphans are found by their session.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _shut_down(process)


def run_dev(stack: Stack, port: int, request: StopRequest) -> bool:
    """Runs `dagster dev` with traffic; returns whether it ended because that was requested."""
    traffic = Traffic(stack.state, seed=time.time_ns())
    with dagster_dev(stack, port) as process:
        while not request.is_requested and process.poll() is None:
            traffic.trickle()
            time.sleep(_POLL_SECONDS)
    return request.is_requested


def free_ui_port() -> int:
    """The first free port for Dagster's UI from 3000 on.

    Raises:
        LocalStackError: none of the first hundred is free.
    """
    for port in range(_FIRST_PORT, _FIRST_PORT + 100):
        if is_free(port):
            return port
    raise LocalStackError(f"No port is free from {_FIRST_PORT} on: give one with --port.")


def _shut_down(process: subprocess.Popen[bytes]) -> None:
    started = session_processes(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        _wait(process)
    wait_for_end(1.0, started)
    if stop(started | session_processes(process.pid), _STOP_STEPS):
        raise LocalStackError(
            "A process of dagster dev does not end: it is in uninterruptible I/O."
        )
    process.wait()


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_SHUTDOWN_SECONDS)
    except subprocess.TimeoutExpired:
        send(signal.SIGTERM, session_processes(process.pid))


def _environment(dotenv: Path) -> dict[str, str]:
    # The user's AWS settings must not point the pipeline away from the local stack.
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    # The file, not the stack's settings: the user may have changed it.
    kept = {name: value for name, value in dotenv_values(dotenv).items() if value is not None}
    return {**_DEMO_SETTINGS, **own, **kept}
