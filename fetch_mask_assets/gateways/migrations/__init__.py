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

from fetch_mask_assets.gateways.postgres import connect, plain_errors

SCHEMA = "login_ingest"
VERSION_TABLE = "schema_version"


def upgrade(database_url: str) -> None:
    """Brings a database to the schema of this release; does nothing where it is already there.

    Raises:
        DatabaseError: the database cannot be reached or refuses a migration.
    """
    engine = _engine(database_url)
    with plain_errors("migrate"), engine.begin() as connection:
        # Two upgrades at once: the second waits, and finds nothing to do.
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(7264014)"))
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
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
