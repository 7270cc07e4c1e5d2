"""The entry point of Alembic: runs the migrations on the connection that `upgrade` provides."""

from __future__ import annotations

from alembic import context

from fetch_mask_assets.postgres.revision import SCHEMA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    version_table_schema=SCHEMA,
)
context.run_migrations()
