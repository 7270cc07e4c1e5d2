"""Signals for processes of the local stack, and for no others."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from signal import Signals

import psutil

_POLL_SECONDS = 0.05
# The kernel counts from boot; the clock that psutil adds to it may be set meanwhile.
_CLOCK_SECONDS = 2.0


def process_of(pid: int, argument: str, created: float | None = None) -> psutil.Process | None:
    """The process with this id, if it is alive and has the argument and the creation time."""
    try:
        process = psutil.Process(pid)
        if not _is_alive(process) or argument not in process.cmdline():
            return None
        began = process.create_time()
    except psutil.Error:
        return None
    return process if created is None or abs(began - created) < _CLOCK_SECONDS else None


def name_of(pid: int) -> str | None:
    """The name of the process with this id; None if there is none."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None


def session_processes(leader: int) -> set[psutil.Process]:
    """The processes of a session, orphans included, and all their descendants."""
    members = [each for each in psutil.process_iter() if _session_of(each.pid) == leader]
    return {*members, *(child for each in members for child in _descendants(each))}


def send(signal: Signals, processes: Iterable[psutil.Process]) -> None:
    """Signals the living ones; psutil refuses if an id belongs to a new process."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal)


def wait_for_end(seconds: float, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Waits for the processes to end; returns those that did not."""
    deadline = time.monotonic() + seconds
    alive = [each for each in processes if _is_alive(each)]
    while alive and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        alive = [each for each in alive if _is_alive(each)]
    return alive


def stop(
    processes: Iterable[psutil.Process], steps: Sequence[tuple[Signals, float]]
) -> list[psutil.Process]:
    """Sends one signal after another, each with its time-out; returns those still alive."""
    alive = list(processes)
    for signal, seconds in steps:
        send(signal, alive)
        alive = wait_for_end(seconds, alive)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    # A zombie has ended; a container may have no init process to reap it.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
