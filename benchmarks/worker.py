"""A process that repeats one piece of work and measures itself: `python -m benchmarks.worker`.

The argument is a module with `rounds`, which prepares a round each time, outside the measurement,
and yields the work of that round. A line on standard input starts a round, whose measurement is
answered as a line of JSON. It needs the standard library alone, so that rivals run in an
environment of their own.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TextIO

_KILOBYTE = 1_024
PROFILED_FUNCTIONS = 30


def main() -> None:
    """Answer each line with the measurement of a round; the line `profile` profiles it."""
    answers = _own_standard_output()
    rounds: Iterator[Callable[[], int]] = import_module(sys.argv[1]).rounds()
    for line in sys.stdin:
        work = next(rounds)
        if line.strip() == "profile":
            with _profile():
                work()
            answers.write("{}\n")
        else:
            answers.write(json.dumps(_measured(work)) + "\n")
        answers.flush()


def _own_standard_output() -> TextIO:
    """Standard output for the answers; other output of this process goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _measured(work: Callable[[], int]) -> dict[str, float]:
    cpu, started = _cpu_seconds(), time.perf_counter()
    messages = work()
    wall = time.perf_counter() - started
    return {
        "messages": messages,
        "cpu_seconds": _cpu_seconds() - cpu,
        "wall_seconds": wall,
        "peak_bytes": _peak_bytes(),
    }


def _peak_bytes() -> int:
    """The peak of resident memory. Source: proc_pid_status(5), VmHWM."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * _KILOBYTE for line in lines if line.startswith("VmHWM:"))


def _cpu_seconds() -> float:
    """User and system time of this process and its ended children."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@contextmanager
def _profile() -> Iterator[None]:
    """Profiles all threads by their CPU time; prints the functions with the most of it."""
    own = cProfile.Profile(time.thread_time)
    profiles = [own]

    def start(_frame: FrameType, _event: str, _argument: object) -> None:
        profiles.append(cProfile.Profile(time.thread_time))
        profiles[-1].enable()

    threading.setprofile(start)
    own.enable()
    try:
        yield
    finally:
        own.disable()
        threading.setprofile(None)
        _print_profiles(profiles)


def _print_profiles(profiles: list[cProfile.Profile]) -> None:
    statistics = pstats.Stats(profiles[0], stream=sys.stderr)
    for profile in profiles[1:]:
        statistics.add(profile)
    statistics.sort_stats("cumulative").print_stats(PROFILED_FUNCTIONS)
    statistics.sort_stats("tottime").print_stats(PROFILED_FUNCTIONS)


if __name__ == "__main__":
    main()
