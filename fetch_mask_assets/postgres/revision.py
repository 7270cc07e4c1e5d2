"""The revision of the database's schema, apart from the migrations: they take long to import."""

from __future__ import annotations

import psycopg

SCHEMA = "login_ingest"
VERSION_TABLE = "schema_version"

HEAD = "0001"
"""The revision that this release needs: the newest of `versions/`."""


def current(connection: psycopg.Connection) -> str | None:
    """The schema revision of a database, or None if it was never migrated."""
    found = connection.execute("SELECT to_regclass(%s)", [f"{SCHEMA}.{VERSION_TABLE}"]).fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute("SELECT version_num FROM login_ingest.schema_version").fetchone()
    return None if row is None else str(row[0])
