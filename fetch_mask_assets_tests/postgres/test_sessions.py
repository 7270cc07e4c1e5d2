"""Sessions: their settings, their name, their keepalives, and the retry of transient failures."""

from __future__ import annotations

import os
import socket
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.postgres.errors import RefusedRowError, TransientDatabaseError
from fetch_mask_assets.postgres.sessions import (
    ATTEMPTS,
    COMMIT,
    JOB_ATTEMPTS,
    LONG_READ,
    LONG_RECORD,
    MIGRATE,
    PROBE,
    READ,
    RECORD,
    REPORT,
    SessionProfile,
    one_row,
    open_session,
    retry_transient,
)

PROFILES = {
    "commit": COMMIT,
    "probe": PROBE,
    "read": READ,
    "long_read": LONG_READ,
    "report": REPORT,
    "record": RECORD,
    "long_record": LONG_RECORD,
    "migrate": MIGRATE,
}
TIMEOUTS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
WRITING = ("commit", "probe", "record", "long_record", "migrate")


def setting(connection: psycopg.Connection, name: str) -> str:
    return str(one_row(connection, "SELECT current_setting(%s)", name)[0])


def settings(url: str, profile: SessionProfile, *names: str) -> tuple[str, ...]:
    with open_session(url, profile, "read") as connection:
        return tuple(setting(connection, name) for name in names)


@pytest.fixture
def hasty_url(database_url: str) -> str:
    """A database whose own settings are the opposite of what a session needs."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for value in (
            "lock_timeout = '9s'",
            "statement_timeout = '9s'",
            "idle_in_transaction_session_timeout = '9s'",
            "synchronous_commit = off",
            "timezone = 'Asia/Kathmandu'",
            "datestyle = 'SQL, DMY'",
            "default_transaction_isolation = 'serializable'",
        ):
            connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {value}".encode())
    return database_url


@pytest.mark.parametrize(
    ("name", "timeouts"),
    [
        ("commit", ("30s", "5min", "5min")),
        ("probe", ("1s", "5min", "5min")),
        ("read", ("30s", "5min", "5min")),
        ("long_read", ("30s", "0", "5min")),
        ("report", ("30s", "15min", "5min")),
        ("record", ("30s", "5min", "5min")),
        ("long_record", ("30s", "0", "5min")),
        ("migrate", ("9s", "9s", "9s")),
    ],
)
def test_a_profile_sets_its_timeouts_whatever_the_database_sets(
    hasty_url: str, name: str, timeouts: tuple[str, ...]
) -> None:
    assert settings(hasty_url, PROFILES[name], *TIMEOUTS) == timeouts


@pytest.mark.parametrize("name", PROFILES)
def test_every_session_is_in_utc_and_in_the_date_style_that_is_read(
    hasty_url: str, name: str
) -> None:
    zone, style = settings(hasty_url, PROFILES[name], "timezone", "datestyle")
    assert (zone, style.split(",")[0]) == ("UTC", "ISO")


@pytest.mark.parametrize("name", PROFILES)
def test_every_statement_of_a_session_reads_what_is_committed_by_then(
    hasty_url: str, name: str
) -> None:
    assert settings(hasty_url, PROFILES[name], "transaction_isolation") == ("read committed",)


@pytest.mark.parametrize("name", PROFILES)
def test_only_a_session_that_only_reads_is_read_only(database_url: str, name: str) -> None:
    expected = "off" if name in WRITING else "on"
    assert settings(database_url, PROFILES[name], "transaction_read_only") == (expected,)


@pytest.mark.parametrize("profile", [RECORD, LONG_RECORD])
def test_a_session_that_writes_to_the_audit_commits_durably(
    hasty_url: str, profile: SessionProfile
) -> None:
    assert settings(hasty_url, profile, "synchronous_commit") == ("on",)


def test_a_session_is_known_by_its_name(database_url: str) -> None:
    assert settings(database_url, READ, "application_name") == ("fetch_mask_assets",)


def test_the_options_of_the_url_are_kept_and_the_profiles_take_precedence(
    database_url: str,
) -> None:
    url = make_conninfo(database_url, options="-c work_mem=5MB -c lock_timeout=9s")
    assert settings(url, COMMIT, "work_mem", "lock_timeout") == ("5MB", "30s")


def test_the_options_of_the_environment_are_kept_where_the_url_has_none(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=5MB")
    assert settings(database_url, COMMIT, "work_mem") == ("5MB",)


def test_a_connection_notices_within_a_minute_that_the_servers_host_has_died(
    database_url: str,
) -> None:
    with (
        open_session(database_url, READ, "read") as connection,
        socket.socket(fileno=os.dup(connection.fileno())) as end,
    ):
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, interval, probes = (end.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        unanswered = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert idle + interval * probes <= 60
    assert 0 < unanswered <= 60_000


def run(url: str, *statements: LiteralString) -> None:
    with open_session(url, COMMIT, "write") as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_session_commits_at_its_end_and_rolls_back_on_an_exception(database_url: str) -> None:
    run(database_url, "CREATE TABLE kept ()")
    with pytest.raises(DatabaseError):
        run(database_url, "CREATE TABLE dropped ()", "SELECT 1 / 0")
    with open_session(database_url, READ, "read") as connection:
        found = one_row(connection, "SELECT to_regclass('kept'), to_regclass('dropped')")
    assert found == ("kept", None)


def test_an_error_in_a_session_is_translated_with_its_action(database_url: str) -> None:
    with pytest.raises(DatabaseError, match=r"refused to write: SQLSTATE 42P01\."):
        run(database_url, "SELECT FROM no_such_table")


def test_an_error_at_the_commit_is_translated_too(database_url: str) -> None:
    with pytest.raises(RefusedRowError, match=r"refused to write: SQLSTATE 23505 by once\."):
        run(
            database_url,
            "CREATE TEMPORARY TABLE numbers (number integer,"
            " CONSTRAINT once UNIQUE (number) DEFERRABLE INITIALLY DEFERRED)",
            "INSERT INTO numbers VALUES (1), (1)",
        )


@pytest.mark.parametrize(("attempts", "fails"), [(ATTEMPTS, 3), (JOB_ATTEMPTS, 5)])
def test_a_transient_failure_is_retried_until_it_passes(
    attempts: int, fails: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    calls = iter([*[TransientDatabaseError("down")] * fails, None])

    @retry_transient(attempts)
    def call() -> str:
        error = next(calls)
        if error:
            raise error
        return "done"

    assert call() == "done"


def test_a_transient_failure_that_does_not_pass_is_raised_after_the_last_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    calls = []

    @retry_transient(3)
    def call() -> None:
        calls.append("call")
        raise TransientDatabaseError("down")

    with pytest.raises(TransientDatabaseError, match="down"):
        call()
    assert len(calls) == 3


@pytest.mark.parametrize("error", [DatabaseError("no"), RefusedRowError("no"), ValueError("no")])
def test_any_other_failure_is_not_retried(error: Exception) -> None:
    calls = []

    @retry_transient()
    def call() -> None:
        calls.append("call")
        raise error

    with pytest.raises(type(error)):
        call()
    assert calls == ["call"]
