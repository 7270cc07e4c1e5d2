"""What the database knows of keys: the registry, and how many rows are under each key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg

from fetch_mask_assets.domain.key_registry import RegisteredKey
from fetch_mask_assets.gateways.database import LoginDatabase
from fetch_mask_assets.gateways.postgres import connect, plain_errors


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """The use of one keyset's keys, by key id: the registry's entries, and counts of rows."""

    registered: Mapping[int, RegisteredKey]
    rows: Mapping[int, int]


def key_usage(database: LoginDatabase, name: str) -> KeyUsage:
    """What the database knows of the keys of a keyset; counts by reading the whole table.

    Raises:
        DatabaseError: the registry or the tokens cannot be read.
    """
    with plain_errors("count rows by key"), connect(database.url) as connection:
        return KeyUsage(registered_keys(connection, name), rows_by_key(connection, name))


def retired_keys(database: LoginDatabase) -> frozenset[tuple[str, int]]:
    """The keys that are retired, as names of keysets and key ids.

    Raises:
        DatabaseError: the registry cannot be read.
    """
    return frozenset(
        (name, key_id)
        for name, key_id in database.query(
            "SELECT keyset, key_id FROM login_ingest.masking_key WHERE retired_at IS NOT NULL"
        )
    )


def registered_keys(connection: psycopg.Connection, name: str) -> dict[int, RegisteredKey]:
    """The registry's entries of a keyset, by key id, the oldest first.

    Raises:
        psycopg.Error: wrap the call in `plain_errors`.
    """
    rows = connection.execute(
        "SELECT key_id, first_used_at, retired_at FROM login_ingest.masking_key"
        " WHERE keyset = %s ORDER BY first_used_at, key_id",
        [name],
    )
    return {key_id: RegisteredKey(first_used, retired) for key_id, first_used, retired in rows}


def rows_by_key(connection: psycopg.Connection, name: str) -> dict[int, int]:
    """How many rows hold a token, or how many messages are sealed, under each key of a keyset.

    Raises:
        psycopg.Error: wrap the call in `plain_errors`.
    """
    counted = connection.execute("SELECT * FROM login_ingest.rows_by_key(%s)", [name])
    return {key_id: int(rows) for key_id, rows in counted}
