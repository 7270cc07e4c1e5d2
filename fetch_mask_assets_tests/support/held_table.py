"""A command that is held up in the copy of its batch, for as long as somebody has user_logins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from fetch_mask_assets_tests.support.commands import Command


@contextmanager
def held_logins(url: str) -> Iterator[None]:
    """Nobody else reads or writes user_logins meanwhile."""
    # Closed without a word more: the server may be gone by then.
    with closing(psycopg.connect(url)) as holder:
        holder.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
        yield


def wait_for_copy(
    url: str, process: Command, seconds: float, said: Callable[[], str] = str
) -> None:
    """Until a process waits for the table; what it `said` is shown if it ends before."""
    give_up = time.monotonic() + seconds
    with psycopg.connect(url, autocommit=True) as watcher:
        while time.monotonic() < give_up:
            assert process.poll() is None, said()
            [(count,)] = watcher.execute(_COPIES_WAITING).fetchall()
            if count:
                return
            time.sleep(0.05)
    pytest.fail("the ingestion did not come to its commit")


# Not the row that a run tries before it receives.
_COPIES_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND query LIKE 'COPY%'
  AND datname = current_database() AND application_name = 'fetch_mask_assets'
"""
