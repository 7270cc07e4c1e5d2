"""`fetch-mask migrate`."""

from __future__ import annotations

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.postgres import migrate as migrations


@click.command()
@click.option(
    "--partitioned", is_flag=True, help="Partition user_logins by month; only where it is new."
)
def migrate(*, partitioned: bool) -> None:
    """Bring the database to the schema of this release.

    Makes user_logins where there is none, and the schema login_ingest beside it. A user_logins
    that exists keeps its columns and its rows. Repeating it does nothing.

    At the end it makes an index on the users of user_logins, if there is none. On a large table
    that takes minutes; ingestion goes on meanwhile.
    """
    database = connections.database()
    before, needed = database.schema_revisions()
    migrations.upgrade(database.url, partitioned=partitioned)
    click.echo(f"The schema is at revision {needed} (was: {before or 'none'}).")
