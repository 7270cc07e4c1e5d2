"""Dry run: masks suspect messages in another process, which they may kill.

Bodies go through a pipe and are not written anywhere; the process answers with one byte for each
unit. It makes keys of its own and is given no key, no credential and no address.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from operator import not_
from pathlib import Path
from typing import IO

import polars as pl
from tenacity import (
    retry,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
)

import fetch_mask_assets
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.pipeline.queue.poison import IsolationResult, Unit, isolate, units

DRY_RUN_SECONDS = 120
"""Time for the search for poison messages, from the first death of the process on."""

# Importing takes about a second; a machine that is busy may need many.
_START_SECONDS = 60
_START_ATTEMPTS = 3
_Requests = Callable[[], Iterable[bytes]]
"""Makes the requests of a dry run anew for each attempt, one after another."""

_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH")


class DryRunError(FetchMaskError):
    """The process does not start; no message was tried."""


def dry_run_messages(
    raw: pl.DataFrame, rows: Sequence[int], on_first_death: Callable[[], object]
) -> IsolationResult:
    """Masks rows of a raw batch in another process, and finds those that kill it.

    Args:
        raw: a frame of `RAW_SCHEMA`.
        rows: the rows to try, in this order.
        on_first_death: called once, when the process dies for the first time.

    Raises:
        DryRunError: the process does not start.
    """
    sizes = raw["body"].str.len_bytes().to_list()
    dry_run = _DryRun(raw["body"], on_first_death)
    return isolate(units(rows, [sizes[row] for row in rows]), dry_run)


class _DryRun:
    """Runs one process after another until the time is up."""

    def __init__(self, bodies: pl.Series, on_first_death: Callable[[], object]) -> None:
        self._bodies = bodies
        self._on_first_death = on_first_death
        self._deadline: float | None = None

    def __call__(self, pending: Sequence[Unit]) -> int | None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return None
        passed = _passed(lambda: map(self._request, pending))
        if passed < len(pending) and self._deadline is None:
            self._on_first_death()
            self._deadline = time.monotonic() + DRY_RUN_SECONDS
        return passed

    def _request(self, unit: Unit) -> bytes:
        bodies: list[str] = self._bodies.gather(list(unit)).to_list()
        return json.dumps(bodies, ensure_ascii=False).encode() + b"\n"


def _passed(requests: _Requests) -> int:
    """The number of units that a process masked before it ended."""
    try:
        answer = _answer_to(requests)
    except OSError as error:
        raise DryRunError(_NOT_STARTED.format(type(error).__name__)) from None
    if not answer:
        raise DryRunError(_NOT_STARTED.format("no answer"))
    return len(answer) - 1


# A shortage of memory or of processes may be over in a moment.
@retry(
    retry=retry_if_exception_type(OSError) | retry_if_result(not_),
    stop=stop_after_attempt(_START_ATTEMPTS) | stop_after_delay(_START_SECONDS),
    wait=wait_exponential(max=10),
    retry_error_callback=lambda state: state.outcome and state.outcome.result(),
)
def _answer_to(requests: _Requests) -> bytes:
    """One byte when the process is ready and one for each unit; none if it never was."""
    source, sink = map(os.fdopen, os.pipe(), ("rb", "wb"))
    # The source is closed first: the feeder may still be writing to a process that has died.
    with sink, ThreadPoolExecutor(1) as pool, source:
        feeding = pool.submit(_feed, sink, requests)
        answer = _answer(source)
    feeding.result()
    return answer


def _feed(sink: IO[bytes], requests: _Requests) -> None:
    """Writes request after request, each made when there is room for it."""
    with suppress(BrokenPipeError), sink:
        sink.writelines(requests())


def _answer(source: IO[bytes]) -> bytes:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fetch_mask_assets.pipeline.queue.dry_run_process"],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_START_SECONDS + DRY_RUN_SECONDS,
            env=_environment(),
            # A Ctrl-C on the terminal must not look like a death of this process.
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        answer: bytes = late.stdout or b""
        return answer
    return done.stdout


def _environment() -> dict[str, str]:
    kept = {
        name: text
        for name, text in os.environ.items()
        if name in _PASSED_ON or name.startswith("PYTHON")
    }
    root = str(Path(fetch_mask_assets.__file__).parents[1])
    path = os.pathsep.join(filter(None, (kept.get("PYTHONPATH"), root)))
    return {**kept, "PYTHONPATH": path, "POLARS_MAX_THREADS": "1"}


_NOT_STARTED = (
    "The process for the dry run of redelivered messages does not start ({}): check the memory and"
    " the number of processes that a run may have."
)
