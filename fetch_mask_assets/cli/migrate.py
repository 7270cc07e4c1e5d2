"""`fetch-mask migrate`."""

from __future__ import annotations

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.gateways import migrations


@click.command()
def migrate() -> None:
    """Bring the database to the schema of this release.

    Makes user_logins where there is none, and the schema login_ingest beside it. A user_logins
    that exists keeps its columns and its rows. Repeating it does nothing.
    """
    database = connections.database()
    before, needed = database.schema_revisions()
    migrations.upgrade(database.url)
    click.echo(f"The schema is at revision {needed} (was: {before or 'none'}).")
