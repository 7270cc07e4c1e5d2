"""Migrations: of an empty database, of one with a table, and several at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.storage import create_keysets, read_keyring
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.pipeline.batch.balance import Balance
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.postgres import migrate, revision
from fetch_mask_assets.postgres.sessions import MIGRATE, open_session
from fetch_mask_assets_tests.support.kinds import BOTH_KINDS
from fetch_mask_assets_tests.support.logins import body, masked_batch, register

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetch_mask_assets.keys.keyset import Keyring
    from fetch_mask_assets.local_stack.stack import Stack


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    """Keys for the whole module."""
    directory = tmp_path_factory.mktemp("keysets")
    create_keysets(directory)
    return read_keyring(directory)


@pytest.fixture
def empty_database_url(stack: Stack) -> Iterator[str]:
    """A database without our schema."""
    name = f"empty_{uuid4().hex}"
    owner = postgres.url(stack.state, postgres.OWNER)
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield postgres.url(stack.state, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_database_that_was_never_migrated_has_no_revision(empty_database_url: str) -> None:
    assert LoginDatabase(empty_database_url).schema_revisions() == (None, revision.HEAD)


def test_migrations_make_everything_and_twice_is_as_once(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    made = _catalog(empty_database_url)
    migrate.upgrade(empty_database_url)
    assert _catalog(empty_database_url) == made
    database = LoginDatabase(empty_database_url)
    assert database.schema_revisions() == (revision.HEAD, revision.HEAD)
    assert {table for table, *_ in made} >= {
        "public.user_logins",
        "login_ingest.batch",
        "login_ingest.ledger",
        "login_ingest.masking_key",
        "login_ingest.quarantine",
        "login_ingest.schema_version",
    }


def test_upgrades_at_once_wait_for_each_other(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(migrate.upgrade, empty_database_url) for _ in range(4)]:
            done.result()
    assert LoginDatabase(empty_database_url).schema_revisions()[0] == revision.HEAD


def test_an_upgrade_that_waits_holds_nobody_up_who_makes_an_index(database_url: str) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE query ~ %s AND pid <> ALL (%s)"
    with (
        ThreadPoolExecutor(1) as pool,
        open_session(database_url, MIGRATE, "migrate") as turn,
        psycopg.connect(database_url, autocommit=True) as maker,
    ):
        turn.execute("LOCK login_ingest.schema_version IN SHARE UPDATE EXCLUSIVE MODE")
        upgraded = pool.submit(migrate.upgrade, database_url)
        ours = [turn.info.backend_pid, maker.info.backend_pid]
        while not maker.execute(waiting, ["^(LOCK login_ingest|ROLLBACK)", ours]).fetchall()[0][0]:
            assert not upgraded.done()
        maker.execute("SET statement_timeout = '20s'")
        maker.execute("CREATE INDEX CONCURRENTLY ON user_logins (locale)")
        assert not upgraded.done()
        turn.rollback()
        upgraded.result()


@BOTH_KINDS
def test_the_table_has_the_columns_that_its_readers_know_and_no_others(database_url: str) -> None:
    columns = [line[1:] for line in _catalog(database_url) if line[0] == "public.user_logins"]
    assert columns == [
        ("user_id", "character varying(128)", False),
        ("device_type", "character varying(32)", False),
        ("masked_ip", "character varying(256)", False),
        ("masked_device_id", "character varying(256)", False),
        ("locale", "character varying(32)", False),
        ("app_version", "integer", False),
        ("create_date", "date", False),
    ]


def test_a_table_that_exists_keeps_its_columns_and_rows(
    empty_database_url: str, keyring: Keyring
) -> None:
    _run(
        empty_database_url,
        "CREATE TABLE user_logins (create_date date, app_version integer, note text,"
        " locale varchar(32), masked_device_id varchar(256), masked_ip varchar(256),"
        " device_type varchar(32), user_id varchar(128))",
        "INSERT INTO user_logins (user_id, note, app_version) VALUES ('old', 'kept', 230)",
    )
    before = _catalog(empty_database_url)
    migrate.upgrade(empty_database_url)
    after = [line for line in _catalog(empty_database_url) if line[0] == "public.user_logins"]
    assert after == before
    register(empty_database_url, keyring)
    balance = commit_batch(
        empty_database_url, BatchToCommit("run", masked_batch(keyring, [body(7)]), lambda _: b"")
    )
    assert balance == Balance(received=1, loaded=1)
    assert _rows(
        empty_database_url,
        "SELECT user_id, note, app_version, create_date FROM user_logins ORDER BY user_id",
    ) == [("old", "kept", 230, None), ("user-7", None, 2_003_000, date(2024, 2, 29))]


def test_migrating_a_database_that_is_not_there_is_an_error_with_a_remedy(stack: Stack) -> None:
    with pytest.raises(DatabaseError, match=r"migrate.*LOGIN_DATABASE_URL"):
        migrate.upgrade(postgres.url(stack.state, "no_such_database"))


def _catalog(url: str) -> list[tuple[Any, ...]]:
    """Each column of the tables of public and login_ingest, in order."""
    return _rows(
        url,
        "SELECT n.nspname || '.' || c.relname, a.attname, format_type(a.atttypid, a.atttypmod),"
        " a.attnotnull FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE a.attnum > 0 AND c.relkind IN ('r', 'p')"
        " AND n.nspname IN ('public', 'login_ingest') AND NOT a.attisdropped"
        " ORDER BY n.nspname, c.relname, a.attnum",
    )


def _rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, options="-c search_path=public,login_ingest") as connection:
        rows = connection.execute(statement.encode()).fetchall()
    return sorted(rows) if "ORDER BY" not in statement else rows


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
