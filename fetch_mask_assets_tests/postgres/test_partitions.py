"""A user_logins that is partitioned by month: what lies where, and what is made when."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.storage import create_keysets, read_keyring
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.postgres import migrate
from fetch_mask_assets.postgres.migrate import create_partitions
from fetch_mask_assets_tests.support.kinds import PARTITIONED_ONLY
from fetch_mask_assets_tests.support.logins import bodies, masked_batch, register
from fetch_mask_assets_tests.support.people import person, sqlstate

if TYPE_CHECKING:
    from fetch_mask_assets.keys.keyset import Keyring
    from fetch_mask_assets.local_stack.stack import Stack

LOADER = "login_ingest_loader"


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
    with psycopg.connect(postgres.url(stack.state, postgres.OWNER), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield postgres.url(stack.state, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


# Asking for it


def test_partitions_are_not_made_unless_they_are_asked_for(database_url: str) -> None:
    assert create_partitions(database_url) is None
    assert _ask(database_url, "SELECT count(*) FROM pg_inherits JOIN pg_class ON oid = inhparent"
                " WHERE relname = 'user_logins'") == [(0,)]  # fmt: skip


def test_a_table_that_exists_without_partitions_is_refused_and_left(
    empty_database_url: str,
) -> None:
    _run(
        empty_database_url,
        "CREATE TABLE user_logins (user_id varchar(128), create_date date)",
        "INSERT INTO user_logins VALUES ('old', NULL)",
    )
    with pytest.raises(DatabaseError, match="Migrate without --partitioned"):
        migrate.upgrade(empty_database_url, partitioned=True)
    assert _ask(empty_database_url, "SELECT user_id FROM user_logins") == [("old",)]
    assert LoginDatabase(empty_database_url).schema_revisions()[0] is None


@PARTITIONED_ONLY
def test_asking_again_changes_nothing_and_not_asking_keeps_the_partitions(
    database_url: str,
) -> None:
    before = _parts(database_url)
    migrate.upgrade(database_url, partitioned=True)
    migrate.upgrade(database_url)
    assert _parts(database_url) == before
    assert create_partitions(database_url) == 0


def test_a_table_that_existed_gets_no_comment(empty_database_url: str) -> None:
    _run(
        empty_database_url,
        "CREATE TABLE user_logins (create_date date, app_version integer,"
        " locale varchar(32), masked_device_id varchar(256), masked_ip varchar(256),"
        " device_type varchar(32), user_id varchar(128))",
        "COMMENT ON COLUMN user_logins.user_id IS 'theirs'",
    )
    migrate.upgrade(empty_database_url)
    assert _ask(
        empty_database_url,
        "SELECT objsubid, description FROM pg_description WHERE objoid = 'user_logins'::regclass",
    ) == [(7, "theirs")]


# What lies where


@PARTITIONED_ONLY
def test_last_month_to_three_months_ahead_are_there_from_the_start(database_url: str) -> None:
    this = datetime.now(UTC).date().replace(day=1)
    expected = [_month(this, ahead) for ahead in range(-1, 4)]
    assert _parts(database_url) == sorted([*expected, "user_logins_default"])


@PARTITIONED_ONLY
def test_a_login_of_this_month_lies_in_its_partition_and_a_late_one_in_the_default(
    database_url: str, keyring: Keyring
) -> None:
    register(database_url, keyring)
    commit_batch(
        database_url, BatchToCommit("late", masked_batch(keyring, bodies(3)), lambda _: b"")
    )
    today = datetime.now(UTC).date()
    _run(database_url, f"INSERT INTO user_logins (user_id, create_date) VALUES ('n', '{today}')")
    _run(database_url, "INSERT INTO user_logins (user_id) VALUES ('dayless')")
    assert _where(database_url) == {
        "dayless": "user_logins_default",
        "n": _month(today.replace(day=1), 0),
        **{f"user-{number}": "user_logins_default" for number in range(3)},
    }


@PARTITIONED_ONLY
def test_a_month_that_comes_due_takes_its_rows_out_of_the_default_partition(
    database_url: str,
) -> None:
    due = _month(datetime.now(UTC).date().replace(day=1), 2)
    day = date(int(due[-7:-3]), int(due[-2:]), 1)
    _run(
        database_url,
        f"DROP TABLE login_ingest.{due}",
        f"INSERT INTO user_logins (user_id, create_date) VALUES ('early', '{day}')",
        "INSERT INTO user_logins (user_id, create_date) VALUES ('late', '2020-02-29')",
    )
    assert _where(database_url)["early"] == "user_logins_default"
    assert create_partitions(database_url) == 1
    assert _where(database_url) == {"early": due, "late": "user_logins_default"}


@PARTITIONED_ONLY
def test_a_partition_has_the_indexes_of_the_table(database_url: str) -> None:
    uneven = _ask(
        database_url,
        "SELECT indrelid::regclass, count(*) FROM pg_index JOIN pg_inherits ON inhrelid = indrelid"
        " WHERE inhparent = 'user_logins'::regclass GROUP BY 1"
        " HAVING count(*) <> (SELECT count(*) FROM pg_index"
        "                     WHERE indrelid = 'user_logins'::regclass)",
    )
    assert uneven == []


@PARTITIONED_ONLY
def test_a_month_that_was_detached_stays_so_and_its_rows_are_gone_from_the_table(
    database_url: str,
) -> None:
    this = _month(datetime.now(UTC).date().replace(day=1), 0)
    today = datetime.now(UTC).date()
    _run(
        database_url,
        f"INSERT INTO user_logins (user_id, create_date) VALUES ('n', '{today}')",
        f"ALTER TABLE user_logins DETACH PARTITION login_ingest.{this}",
    )
    assert create_partitions(database_url) == 0
    assert _where(database_url) == {}
    assert _ask(database_url, f"SELECT user_id FROM login_ingest.{this}") == [("n",)]


# Who makes them


@PARTITIONED_ONLY
def test_the_loader_makes_what_is_due_and_can_do_nothing_else_with_it(
    database_url: str,
) -> None:
    due = _month(datetime.now(UTC).date().replace(day=1), 3)
    _run(database_url, f"DROP TABLE login_ingest.{due}")
    with person(database_url, LOADER) as loader:
        assert create_partitions(loader.url) == 1
        assert create_partitions(loader.url) == 0
        for statement in (
            f"DROP TABLE login_ingest.{due}",
            f"SELECT * FROM login_ingest.{due}",
            f"INSERT INTO login_ingest.{due} (user_id) VALUES ('u')",
            f"ALTER TABLE user_logins DETACH PARTITION login_ingest.{due}",
            "CREATE TABLE mine PARTITION OF user_logins FOR VALUES FROM ('1999-01-01') TO (NULL)",
        ):
            assert sqlstate(loader.url, statement) == "42501", statement
        assert sqlstate(
            loader.url,
            "CREATE TEMP TABLE user_logins_default ()",
            "SET search_path = pg_temp, public",
            "SET TimeZone = 'Pacific/Kiritimati'",
            "SET DateStyle = 'SQL, DMY'",
            "SELECT login_ingest.create_partitions()",
        ) is None  # fmt: skip
    assert due in _parts(database_url)


@PARTITIONED_ONLY
@pytest.mark.parametrize("role", ["login_ingest_analyst", "login_ingest_auditor"])
def test_readers_make_none(database_url: str, role: str) -> None:
    with person(database_url, role) as eve:
        assert sqlstate(eve.url, "SELECT login_ingest.create_partitions()") == "42501"


@PARTITIONED_ONLY
def test_two_at_once_make_each_month_once_beside_batches(
    database_url: str, keyring: Keyring
) -> None:
    due = [_month(datetime.now(UTC).date().replace(day=1), ahead) for ahead in (1, 2, 3)]
    _run(database_url, *[f"DROP TABLE login_ingest.{part}" for part in due])
    database = LoginDatabase(database_url)
    register(database_url, keyring)
    batches = [
        BatchToCommit(f"run-{n}", masked_batch(keyring, bodies(50)), lambda _: b"")
        for n in range(6)
    ]
    with ThreadPoolExecutor(8) as pool:
        commits = [pool.submit(commit_batch, database.url, batch) for batch in batches]
        made = [pool.submit(create_partitions, database_url) for _ in range(2)]
    assert sum(each.result() or 0 for each in made) == 3
    assert sum(each.result().loaded for each in commits) == 300
    assert _ask(database_url, "SELECT count(*) FROM user_logins") == [(300,)]


@PARTITIONED_ONLY
def test_while_somebody_reads_long_it_gives_up_and_says_so(database_url: str) -> None:
    due = _month(datetime.now(UTC).date().replace(day=1), 3)
    _run(database_url, f"DROP TABLE login_ingest.{due}")
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM user_logins")
        with pytest.raises(DatabaseError, match="55P03"):
            create_partitions(database_url)
    assert create_partitions(database_url) == 1


def _month(first: date, ahead: int) -> str:
    months = first.year * 12 + first.month - 1 + ahead
    return f"user_logins_{months // 12}_{months % 12 + 1:02}"


def _parts(database_url: str) -> list[str]:
    return [
        name
        for (name,) in _ask(
            database_url,
            "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid"
            " WHERE inhparent = 'user_logins'::regclass ORDER BY relname",
        )
    ]


def _where(database_url: str) -> dict[str, str]:
    return dict(
        _ask(
            database_url,
            "SELECT user_id, relname FROM user_logins JOIN pg_class"
            " ON pg_class.oid = user_logins.tableoid",
        )
    )


def _ask(database_url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(statement.encode()).fetchall()


def _run(database_url: str, *statements: str) -> None:
    with psycopg.connect(database_url) as connection:
        for statement in statements:
            connection.execute(statement.encode())
