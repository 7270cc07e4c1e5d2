"""Dagster's instance, apart from the connections: importing Dagster takes seconds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dagster import DagsterInstance
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
    """The instance of DAGSTER_HOME, or one that is gone afterwards where that is not set.

    Raises:
        InstanceError: its storage cannot be used.
    """
    with _open() as instance:
        yield instance


def _open() -> DagsterInstance:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        return DagsterInstance.ephemeral()
    try:
        with _alone(Path(home)):
            instance = DagsterInstance.get()
        # Read at its first use otherwise, which is in the middle of a run.
        _ = instance.run_coordinator
    except STORAGE_ERRORS as error:
        raise InstanceError(
            f"Dagster's storage cannot be used ({type(error).__name__}): check DAGSTER_HOME, its"
            f" dagster.yaml and its database.{_unset(error)}"
        ) from None
    return instance


def _unset(error: BaseException) -> str:
    """The names of settings that dagster.yaml asks for in vain; nothing else of the message."""
    names = sorted(set(_UNSET.findall(str(error))))
    return f" Not set: {', '.join(names)}." if names else ""


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One process at a time: two that make a new SQLite storage stamp its version twice."""
    lock = FileLock(home / _LOCK, timeout=_LOCK_SECONDS)
    # Where no lock can be had, no storage can be made either, and Dagster says what is wrong.
    with suppress(OSError):
        if home.is_dir():
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
