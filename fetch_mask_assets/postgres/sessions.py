"""Database sessions: their profiles, how they are opened, and how their failures are retried."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, LiteralString, ParamSpec, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.postgres.errors import TransientDatabaseError, translate_errors

APPLICATION_NAME = "fetch_mask_assets"
"""The name of every session in pg_stat_activity."""

ATTEMPTS = 4
"""Attempts at one transaction."""
JOB_ATTEMPTS = 6
"""Attempts at one transaction of a job that runs for hours."""

_FIRST_WAIT_SECONDS = 0.2
_MAX_WAIT_SECONDS = 5.0

_CONNECT_SECONDS = 10

# Without these, a session waits for hours for a server whose host has died.
_KEEPALIVE_IDLE_SECONDS = 30
_KEEPALIVE_INTERVAL_SECONDS = 10
_KEEPALIVE_COUNT = 3
_TCP_USER_TIMEOUT_MILLISECONDS = 60_000

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class SessionProfile:
    """The settings of a session; the defaults are those of every session.

    Time-outs are in seconds, 0 for none. None leaves a setting to the server's, the database's or
    the user's default. Source: https://www.postgresql.org/docs/current/runtime-config-client.html
    """

    lock_timeout: int | None = 30
    statement_timeout: int | None = 300
    idle_in_transaction_session_timeout: int | None = 300
    synchronous_commit: bool | None = None
    default_transaction_read_only: bool | None = None
    # What a statement reads after it has waited for a lock must be what is committed by then.
    default_transaction_isolation: str = "read committed"
    timezone: str = "UTC"
    # The one style that psycopg reads.
    datestyle: str = "ISO"

    @property
    def options(self) -> str:
        """The settings as libpq's `options`."""
        settings = {name: value for name, value in asdict(self).items() if value is not None}
        return " ".join(f"-c {name}={_setting(value)}" for name, value in settings.items())


COMMIT = SessionProfile()
"""Commits a batch. A hung session does not keep the ledger's locks."""

PROBE = replace(COMMIT, lock_timeout=1)
"""Tests whether a table can be written, without a long wait for its locks."""

READ = SessionProfile(default_transaction_read_only=True)
"""Reads rows of bounded number."""

LONG_READ = replace(READ, statement_timeout=0)
"""Reads whole tables."""

REPORT = replace(READ, statement_timeout=900)
"""Reads whole tables for one report, in a snapshot that must not last for ever."""

RECORD = SessionProfile(synchronous_commit=True)
"""Writes to the audit: a commit returns once the record is on disk."""

LONG_RECORD = replace(RECORD, statement_timeout=0)
"""Writes to the audit, and reads or rewrites whole tables."""

MIGRATE = SessionProfile(
    lock_timeout=None, statement_timeout=None, idle_in_transaction_session_timeout=None
)
"""Changes the schema. An index on a large table takes minutes while another session is idle."""


@contextmanager
def open_session(
    database_url: str, profile: SessionProfile, action: str
) -> Iterator[psycopg.Connection]:
    """Open a session, commit at the end of the block or roll back on an exception, and close it.

    Args:
        database_url: libpq URL.
        profile: the session's settings.
        action: a verb phrase for error messages, as in `translate_errors`.

    Raises:
        DatabaseError: no connection, or an error of the database within the block.
    """
    # The connection's own block leaves it open if the commit fails.
    with (
        translate_errors(action),
        closing(connect(database_url, profile)) as connection,
        connection,
    ):
        yield connection


def connect(database_url: str, profile: SessionProfile) -> psycopg.Connection:
    """Connect with a profile's settings, which take precedence over the options in the URL.

    Raises:
        psycopg.Error: no connection; wrap the call in `translate_errors`.
    """
    return psycopg.connect(
        database_url,
        connect_timeout=_CONNECT_SECONDS,
        application_name=APPLICATION_NAME,
        tcp_user_timeout=_TCP_USER_TIMEOUT_MILLISECONDS,
        keepalives_idle=_KEEPALIVE_IDLE_SECONDS,
        keepalives_interval=_KEEPALIVE_INTERVAL_SECONDS,
        keepalives_count=_KEEPALIVE_COUNT,
        options=f"{_given_options(database_url)} {profile.options}",
    )


def one_row(
    connection: psycopg.Connection, statement: LiteralString, *values: object
) -> tuple[Any, ...]:
    """Run a statement that always returns a row, and return that row.

    Raises:
        DatabaseError: it returned none.
        psycopg.Error: it was refused; wrap the call in `translate_errors`.
    """
    row = connection.execute(statement, values or None).fetchone()
    if row is None:
        raise DatabaseError("the database returned no row where there is always one.")
    return row


def retry_transient(attempts: int = ATTEMPTS) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Repeat a function on `TransientDatabaseError`, after random waits that grow.

    The function must be safe to repeat after a commit whose answer was lost.
    """
    return retry(
        retry=retry_if_exception_type(TransientDatabaseError),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=_MAX_WAIT_SECONDS),
        reraise=True,
    )


def _given_options(database_url: str) -> str:
    # libpq takes one source of options only: the argument of the call hides the others.
    given = conninfo_to_dict(database_url).get("options") or os.environ.get("PGOPTIONS")
    return str(given or "")


def _setting(value: bool | int | str) -> str:  # noqa: FBT001 (a setting's value)
    if isinstance(value, bool):
        return "on" if value else "off"
    # libpq splits the options at spaces.
    return value.replace(" ", r"\ ") if isinstance(value, str) else f"{value}s"
