"""Dagster's instance and its runs, apart from the connections: importing Dagster takes seconds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dagster import DagsterExecutionInterruptedError, DagsterInstance, ExecuteInProcessResult
from filelock import FileLock

from fetch_mask_assets.defs.operations.check_history import STORAGE_ERRORS
from fetch_mask_assets.errors import FetchMaskError

_LOCK = ".fetch-mask.lock"
_LOCK_SECONDS = 60
_UNSET = re.compile(r'environment variable "(\w+)" which is not set')


class InstanceError(FetchMaskError):
    """Dagster's instance cannot be used."""


@contextmanager
def dagster_instance() -> Iterator[DagsterInstance]:
    """The instance of DAGSTER_HOME, or a temporary one if that is not set.

    Raises:
        InstanceError: its storage cannot be used.
    """
    with _open() as instance:
        yield instance


def describe_failure(result: ExecuteInProcessResult) -> str:
    """A sentence with the run's id and the error of each failed step.

    If no step failed, Dagster itself did; then it names the class of the error, whose message may
    hold values.
    """
    failures = [event for event in result.all_events if event.is_step_failure]
    errors = [event.step_failure_data.error for event in failures]
    causes = [error.cause or error for error in errors if error]
    if any(error.cls_name == DagsterExecutionInterruptedError.__name__ for error in causes):
        return f"Run {result.run_id} was interrupted."
    messages = [cause.message.strip() for cause in causes] or _errors_of_dagster(result)
    return " ".join([f"Run {result.run_id} failed.", *messages])


def _errors_of_dagster(result: ExecuteInProcessResult) -> list[str]:
    failures = [event for event in result.all_events if event.is_run_failure]
    errors = [event.job_failure_data.error for event in failures]
    names = [(error.cause or error).cls_name for error in errors if error]
    return [f"Dagster itself failed ({name}): --verbose shows where." for name in names]


def _open() -> DagsterInstance:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        return DagsterInstance.ephemeral()
    try:
        with _storage_lock(Path(home)):
            instance = DagsterInstance.get()
        # Its configuration would otherwise be read in the middle of a run.
        _ = instance.run_coordinator
    except STORAGE_ERRORS as error:
        raise InstanceError(
            f"Dagster's storage cannot be used ({type(error).__name__}): check DAGSTER_HOME, its"
            f" dagster.yaml and its database.{_unset_settings(error)}"
        ) from None
    return instance


def _unset_settings(error: BaseException) -> str:
    """The unset settings that dagster.yaml refers to; nothing else of the message."""
    names = sorted(set(_UNSET.findall(str(error))))
    return f" Not set: {', '.join(names)}." if names else ""


@contextmanager
def _storage_lock(home: Path) -> Iterator[None]:
    """One process at a time: two that create an SQLite storage stamp its version twice."""
    lock = FileLock(home / _LOCK, timeout=_LOCK_SECONDS)
    # Without write access Dagster cannot create its storage either, and reports that.
    with suppress(OSError):
        if home.is_dir():
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
