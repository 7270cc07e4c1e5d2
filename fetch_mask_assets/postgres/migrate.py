"""The schema of the warehouse, brought to a database by Alembic migrations.

Applied by `fetch-mask migrate` and by the local stack, never by a run.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.postgres.errors import RefusedRowError, translate_errors
from fetch_mask_assets.postgres.sessions import (
    LONG_RECORD,
    MIGRATE,
    connect,
    one_row,
    open_session,
)

SCHEMA = "login_ingest"
VERSION_TABLE = "schema_version"


# The whole truth of the database, in the order of its making.
SCHEMA_FILES = tuple(sorted((Path(__file__).parent / "schema").glob("*.sql")))

# What 03_user_logins.sql looks at.
_ASK_FOR_PARTITIONS = "SELECT set_config('login_ingest.partitioned', 'on', true)"

_IS_PARTITIONED = """
SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass('user_logins')
               AND inhrelid = to_regclass('login_ingest.user_logins_default'))
"""

# Asked for again and again: a statement that waits has a snapshot, and whoever makes an index
# waits for every snapshot.
_LOCK_VERSION = f"LOCK {SCHEMA}.{VERSION_TABLE} IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"

# An index of somebody's own that begins with the user is enough.
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


# Of two upgrades of an empty database the second waits for the first one's schema, is refused a
# second one of that name, and then finds nothing to do.
@retry(retry=retry_if_exception_type(RefusedRowError), stop=stop_after_attempt(3), reraise=True)
def upgrade(database_url: str, *, partitioned: bool = False) -> None:
    """Brings a database to the schema of this release; does nothing where it is already there.

    Args:
        database_url: libpq URL of someone who owns user_logins, or may make it.
        partitioned: whether a user_logins that is made now is partitioned by month.

    Raises:
        DatabaseError: the database cannot be reached or refuses a migration, or user_logins is
            there already and partitions were asked for that it does not have.
    """
    engine = _engine(database_url)
    with translate_errors("migrate"), engine.begin() as connection:
        _wait_for_others(connection)
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        config = _config()
        config.attributes["connection"] = connection
        if partitioned:
            _require_partitions(connection)
        command.upgrade(config, "head")
        connection.execute(sqlalchemy.text(f"SELECT {SCHEMA}.create_partitions()"))
    make_index(database_url)


def make_index(database_url: str) -> None:
    """Makes the index on the users of user_logins, unless it has one.

    Outside the migrations' transaction, because only so writers go on while it is made: on a large
    table that takes minutes. What was stopped half-way is made again.

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
    [(is_there, is_half_made, is_partitioned)] = connection.execute(_INDEX_STATE)
    # Postgres makes none so on a partitioned table; one that we made is new here.
    how = sql.SQL("" if is_partitioned else "CONCURRENTLY")
    if is_half_made:
        connection.execute(sql.SQL("DROP INDEX {} user_logins_user_id").format(how))
    if not is_there:
        connection.execute(sql.SQL(_INDEX).format(how))


def head() -> str:
    """The revision that this release needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    return revision or "none"


def current(connection: psycopg.Connection) -> str | None:
    """The revision that a database has, or None if it has never been migrated."""
    found = connection.execute("SELECT to_regclass(%s)", [f"{SCHEMA}.{VERSION_TABLE}"]).fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute("SELECT version_num FROM login_ingest.schema_version").fetchone()
    return None if row is None else str(row[0])


def _wait_for_others(connection: sqlalchemy.Connection) -> None:
    """One upgrade at a time, by a lock that only who may write the version can hold."""
    if sqlalchemy.inspect(connection).has_table(VERSION_TABLE, schema=SCHEMA):
        _lock_version(connection.connection.driver_connection)


@retry(retry=retry_if_exception_type(psycopg.errors.LockNotAvailable), wait=wait_fixed(0.2))
def _lock_version(connection: psycopg.Connection | None) -> None:
    """Locks the version to the end of a transaction that has done nothing yet."""
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
        connection.execute(sqlalchemy.text(_ASK_FOR_PARTITIONS))
    elif not connection.execute(sqlalchemy.text(_IS_PARTITIONED)).scalar_one():
        raise DatabaseError(
            "user_logins is there already, without monthly partitions of ours, and is left as it"
            " is. Migrate without --partitioned, or ask for partitions in a database that has no"
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
