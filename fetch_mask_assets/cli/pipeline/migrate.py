"""`fetch-mask migrate`."""

from __future__ import annotations

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.postgres import migrate as migrations


@click.command()
@click.option(
    "--partitioned", is_flag=True, help="Partition user_logins by month; only if it is new."
)
def migrate(*, partitioned: bool) -> None:
    """Bring the database to the schema of this release.

    Creates the schema login_ingest, and user_logins if it does not exist. An existing user_logins
    keeps its columns and its rows. Running it again changes nothing.

    At the end it creates an index on the users of user_logins, if there is none. On a large table
    that takes minutes; ingestion continues meanwhile.
    """
    database = connections.database()
    before, needed = database.schema_revisions()
    migrations.upgrade(database.url, partitioned=partitioned)
    click.echo(f"The schema is at revision {needed} (was: {before or 'none'}).")
