"""Signals for processes that are proven ours, and for no others."""

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
    """The process with this id, if it is alive, names the argument and began when it should."""
    try:
        process = psutil.Process(pid)
        if not _is_alive(process) or argument not in process.cmdline():
            return None
        began = process.create_time()
    except psutil.Error:
        return None
    return process if created is None or abs(began - created) < _CLOCK_SECONDS else None


def name_of(pid: int) -> str | None:
    """The name of the process with this id, None where there is none."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None


def session(leader: int) -> list[psutil.Process]:
    """The living processes of a session, also those whose parents are gone."""
    return [each for each in psutil.process_iter() if _session_of(each.pid) == leader]


def family(leader: int) -> set[psutil.Process]:
    """The members of a session and all their descendants."""
    members = session(leader)
    return {*members, *(child for each in members for child in _descendants(each))}


def send(signal: Signals, processes: Iterable[psutil.Process]) -> None:
    """Signals those that are still there; psutil refuses where an id has been given anew."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal)


def left_after(seconds: float, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Waits for the processes to end; those that did not."""
    deadline = time.monotonic() + seconds
    left = [each for each in processes if _is_alive(each)]
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        left = [each for each in left if _is_alive(each)]
    return left


def stop(
    processes: Iterable[psutil.Process], steps: Sequence[tuple[Signals, float]]
) -> list[psutil.Process]:
    """Sends one signal after another, each with its seconds to take effect; what is left."""
    left = list(processes)
    for signal, seconds in steps:
        send(signal, left)
        left = left_after(seconds, left)
    return left


def _is_alive(process: psutil.Process) -> bool:
    # A zombie has ended; in a container nobody may be there to collect it.
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
