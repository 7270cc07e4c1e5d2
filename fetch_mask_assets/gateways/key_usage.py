"""What the database knows of keys: the registry, and how many rows are under each key.

A key's id stands in each token and each sealed body, after Tink's version byte.
Source: https://developers.google.com/tink/wire-format
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from fetch_mask_assets.domain.key_registry import RegisteredKey
from fetch_mask_assets.domain.keyset import QUARANTINE
from fetch_mask_assets.domain.masked_field import DEVICE_ID, IP
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
    return {key_id: int(rows) for key_id, rows in connection.execute(_COUNT_ROWS[name])}


# The id is in the first eight characters. They are grouped first, so that few are looked at, and
# only CASE promises that what is no token is not decoded. The version byte, 1, makes "A" and one
# of the sixteen letters after it.
_COUNT_IPS = """
SELECT ('x' || encode(substr(prefix, 2, 4), 'hex'))::bit(32)::bigint, sum(rows) FROM (
    SELECT CASE WHEN head ~ '^ip:A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{6}$'
           THEN decode(translate(substr(head, 4), '-_', '+/'), 'base64') END AS prefix, rows
    FROM (
        SELECT substr(masked_ip, 1, 11) AS head, count(*) AS rows FROM user_logins GROUP BY 1
    ) AS heads
) AS prefixes WHERE prefix IS NOT NULL GROUP BY 1
"""

_COUNT_DEVICE_IDS = """
SELECT ('x' || encode(substr(prefix, 2, 4), 'hex'))::bit(32)::bigint, sum(rows) FROM (
    SELECT CASE WHEN head ~ '^device_id:A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{6}$'
           THEN decode(translate(substr(head, 11), '-_', '+/'), 'base64') END AS prefix, rows
    FROM (
        SELECT substr(masked_device_id, 1, 18) AS head, count(*) AS rows FROM user_logins GROUP BY 1
    ) AS heads
) AS prefixes WHERE prefix IS NOT NULL GROUP BY 1
"""

_COUNT_SEALED = """
SELECT ('x' || encode(substr(sealed_body, 2, 4), 'hex'))::bit(32)::bigint, count(*)
FROM login_ingest.quarantine
WHERE length(sealed_body) > 5 AND get_byte(sealed_body, 0) = 1 GROUP BY 1
"""

_COUNT_ROWS: Mapping[str, LiteralString] = {
    IP.name: _COUNT_IPS,
    DEVICE_ID.name: _COUNT_DEVICE_IDS,
    QUARANTINE: _COUNT_SEALED,
}
