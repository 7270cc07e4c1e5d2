"""Migrations of the warehouse's schema by Alembic, and its monthly partitions.

`fetch-mask migrate` and the local stack migrate; a run never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from psycopg import sql
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.postgres.errors import RefusedRowError, translate_errors
from fetch_mask_assets.postgres.revision import SCHEMA, VERSION_TABLE
from fetch_mask_assets.postgres.sessions import (
    LONG_RECORD,
    MIGRATE,
    connect,
    one_row,
    open_session,
)

# The complete schema, in the order of execution.
SCHEMA_FILES = tuple(sorted((Path(__file__).parent / "schema").glob("*.sql")))

# Read by 03_user_logins.sql.
_SET_PARTITIONED = "SELECT set_config('login_ingest.partitioned', 'on', true)"

_IS_PARTITIONED = """
SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass('user_logins')
               AND inhrelid = to_regclass('login_ingest.user_logins_default'))
"""

# NOWAIT and repeated: a waiting statement has a snapshot, and CREATE INDEX CONCURRENTLY waits for
# every snapshot.
_LOCK_VERSION = f"LOCK {SCHEMA}.{VERSION_TABLE} IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"

# Any valid index that begins with user_id will do.
_INDEX_STATE = """
SELECT EXISTS (
           SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
           WHERE indrelid = 'user_logins'::regclass AND attname = 'user_id'
             AND indisvalid AND indpred IS NULL),
       EXISTS (SELECT FROM pg_index
               WHERE indexrelid = to_regclass('user_logins_user_id') AND NOT indisvalid),
       (SELECT relkind = 'p' FROM pg_class WHERE oid = 'user_logins'::regclass)
"""

_INDEX = "CREATE INDEX {} IF NOT EXISTS user_logins_user_id ON user_logins (user_id)"


# Of two upgrades of an empty database, the second waits for the first, cannot create a schema of
# the same name, and has nothing left to do when it is repeated.
@retry(retry=retry_if_exception_type(RefusedRowError), stop=stop_after_attempt(3), reraise=True)
def upgrade(database_url: str, *, partitioned: bool = False) -> None:
    """Migrate a database to the schema of this release; a current schema stays as it is.

    Args:
        database_url: libpq URL of a user who owns user_logins or can create it.
        partitioned: whether user_logins, if it does not exist yet, is partitioned by month.

    Raises:
        DatabaseError: the database cannot be reached or refuses a migration, or `partitioned` is
            set and user_logins exists without partitions.
    """
    engine = _engine(database_url)
    with translate_errors("migrate"), _unwrapped_errors(), engine.begin() as connection:
        _wait_for_others(connection)
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        config = _config()
        config.attributes["connection"] = connection
        if partitioned:
            _require_partitions(connection)
        command.upgrade(config, "head")
        connection.execute(sqlalchemy.text(f"SELECT {SCHEMA}.create_partitions()"))
        connection.execute(sqlalchemy.text(f"SELECT {SCHEMA}.create_ledger_partitions()"))
    make_index(database_url)


def make_index(database_url: str) -> None:
    """Create the index on user_logins.user_id, unless the table has one.

    Outside the migrations' transaction, as CREATE INDEX CONCURRENTLY requires: on a large table it
    takes minutes, and writers go on meanwhile. An index left invalid is created anew.

    Raises:
        DatabaseError: the database refused.
    """
    with open_session(database_url, MIGRATE, "make an index") as lock_session:
        _lock_version(lock_session)
        with open_session(database_url, MIGRATE, "make an index") as connection:
            connection.autocommit = True
            _make_index(connection)


def create_partitions(database_url: str) -> int | None:
    """Create the monthly partitions of user_logins that are due, last month to three months ahead.

    Returns:
        The number of new partitions; None if user_logins is not partitioned by `upgrade`.

    Raises:
        DatabaseError: none was created; if the table was in use, a later call can create them.
    """
    with open_session(database_url, LONG_RECORD, "make partitions") as connection:
        (made,) = one_row(connection, "SELECT login_ingest.create_partitions()")
    return None if made is None else int(made)


def _make_index(connection: psycopg.Connection) -> None:
    [(exists, is_invalid, is_partitioned)] = connection.execute(_INDEX_STATE)
    # Postgres does not support CONCURRENTLY on a partitioned table; ours is new and empty.
    how = sql.SQL("" if is_partitioned else "CONCURRENTLY")
    if is_invalid:
        connection.execute(sql.SQL("DROP INDEX {} user_logins_user_id").format(how))
    if not exists:
        connection.execute(sql.SQL(_INDEX).format(how))


@contextmanager
def _unwrapped_errors() -> Iterator[None]:
    """Raise psycopg's errors instead of SQLAlchemy's, which wrap them."""
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        raise error.orig or error from None


def _wait_for_others(connection: sqlalchemy.Connection) -> None:
    """Let one upgrade run at a time; the lock needs the right to write the version."""
    if sqlalchemy.inspect(connection).has_table(VERSION_TABLE, schema=SCHEMA):
        _lock_version(connection.connection.driver_connection)


@retry(retry=retry_if_exception_type(psycopg.errors.LockNotAvailable), wait=wait_fixed(0.2))
def _lock_version(connection: psycopg.Connection | None) -> None:
    """Lock the version until the end of a transaction, which must be empty so far."""
    if connection is None:
        return
    try:
        connection.execute(_LOCK_VERSION)
    except psycopg.errors.LockNotAvailable:
        connection.rollback()
        raise


def _is_missing(connection: sqlalchemy.Connection) -> bool:
    found = connection.execute(sqlalchemy.text("SELECT to_regclass('user_logins')"))
    return found.scalar_one() is None


def _require_partitions(connection: sqlalchemy.Connection) -> None:
    if _is_missing(connection):
        connection.execute(sqlalchemy.text(_SET_PARTITIONED))
    elif not connection.execute(sqlalchemy.text(_IS_PARTITIONED)).scalar_one():
        raise DatabaseError(
            "user_logins exists already, without monthly partitions of ours, and was left as it is."
            " Migrate without --partitioned, or use --partitioned with a database that has no"
            " user_logins yet."
        )


def _engine(database_url: str) -> sqlalchemy.Engine:
    # psycopg reads every form of libpq URL; SQLAlchemy would read its own.
    return sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(database_url, MIGRATE),
        poolclass=sqlalchemy.NullPool,
        hide_parameters=True,
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config
