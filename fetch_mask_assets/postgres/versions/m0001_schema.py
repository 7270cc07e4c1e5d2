"""The whole schema, from its files."""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.postgres.migrate import SCHEMA_FILES

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the schema files in their order.

    Until the first release this revision follows the files. The release freezes it: a copy of the
    files is put beside it, and it runs the copy.
    """
    for path in SCHEMA_FILES:
        op.get_bind().exec_driver_sql(path.read_text(), execution_options={"no_parameters": True})
