"""The monthly partitions of user_logins."""

from __future__ import annotations

from fetch_mask_assets.postgres.connection import connect, one_row, translate_errors


def create_partitions(database_url: str) -> int | None:
    """Makes the partitions that are due, last month to three months ahead.

    Returns:
        How many were made; None if user_logins is not partitioned by `fetch-mask migrate`.

    Raises:
        DatabaseError: none was made; the table may have been in use, then a later call makes them.
    """
    with translate_errors("make partitions"), connect(database_url) as connection:
        (made,) = one_row(connection, "SELECT login_ingest.create_partitions()")
    return None if made is None else int(made)
