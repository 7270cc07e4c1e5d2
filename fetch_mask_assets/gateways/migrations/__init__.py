"""The schema of the warehouse, as Alembic migrations.

Applied by `fetch-mask migrate` and by the local stack, never by a run.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from fetch_mask_assets.gateways.postgres import RefusedRowError, connect, plain_errors

SCHEMA = "login_ingest"
VERSION_TABLE = "schema_version"


# Of two upgrades of an empty database the second waits for the first one's schema, is refused a
# second one of that name, and then finds nothing to do.
@retry(retry=retry_if_exception_type(RefusedRowError), stop=stop_after_attempt(3), reraise=True)
def upgrade(database_url: str) -> None:
    """Brings a database to the schema of this release; does nothing where it is already there.

    Raises:
        DatabaseError: the database cannot be reached or refuses a migration.
    """
    engine = _engine(database_url)
    with plain_errors("migrate"), engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        _wait_for_others(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


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
        version = f"{SCHEMA}.{VERSION_TABLE}"
        connection.execute(sqlalchemy.text(f"LOCK {version} IN SHARE UPDATE EXCLUSIVE MODE"))


def _engine(database_url: str) -> sqlalchemy.Engine:
    # psycopg reads every form of libpq URL; SQLAlchemy would read its own.
    return sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(database_url),
        poolclass=sqlalchemy.NullPool,
        hide_parameters=True,
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config
