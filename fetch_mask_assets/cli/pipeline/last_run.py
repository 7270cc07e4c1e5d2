"""The time of the last run of `fetch-mask ingest`, if it succeeded: a file in DAGSTER_HOME.

Runs of other hosts and of the daemon do not count, and a run that fails or is killed leaves no
file: without one, or without DAGSTER_HOME, the next command makes a run.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_FILE = ".fetch-mask.last-run"


def was_within(seconds: float) -> bool:
    """Return whether the last run succeeded, and ended at most so many seconds ago."""
    path = _path()
    if path is None:
        return False
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return False
    return 0 <= age <= seconds


def forget() -> None:
    """Removes the record; a run that begins may fail or be killed."""
    path = _path()
    if path is not None:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def record() -> None:
    """Records that a run succeeded; a directory that cannot be written keeps no record."""
    path = _path()
    if path is not None:
        with suppress(OSError):
            path.touch(mode=0o600)


def _path() -> Path | None:
    home = os.environ.get("DAGSTER_HOME")
    return Path(home) / _FILE if home else None
