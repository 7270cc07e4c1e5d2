"""Keys in the database: registry, usage, locks and links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import psycopg

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.keyset import QUARANTINE
from fetch_mask_assets.keys.links import TokenLink
from fetch_mask_assets.keys.registry import RegisteredKey
from fetch_mask_assets.masking.fields import MASKED_FIELDS
from fetch_mask_assets.masking.key_ids import KEY_HEAD_LENGTH, sealed_key_id, token_key_id
from fetch_mask_assets.postgres.connection import connect, translate_errors


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """The use of one keyset's keys, by key id: the registry's entries, and counts of rows."""

    registered: Mapping[int, RegisteredKey]
    rows: Mapping[int, int]


def key_usage(database_url: str, name: str) -> KeyUsage:
    """What the database knows of the keys of a keyset; counts by reading the whole table.

    Raises:
        DatabaseError: the registry or the tokens cannot be read.
    """
    with translate_errors("count rows by key"), connect(database_url) as connection:
        return KeyUsage(registered_keys(connection, name), rows_by_key(connection, name))


def retired_keys(database_url: str) -> frozenset[tuple[str, int]]:
    """The keys that are retired, as names of keysets and key ids.

    Raises:
        DatabaseError: the registry cannot be read.
    """
    with translate_errors("read the retired keys"), connect(database_url) as connection:
        return frozenset(connection.execute(_RETIRED_KEYS).fetchall())


def registered_keys(connection: psycopg.Connection, name: str) -> dict[int, RegisteredKey]:
    """The registry's entries of a keyset, by key id, the oldest first.

    Raises:
        psycopg.Error: wrap the call in `translate_errors`.
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
        psycopg.Error: wrap the call in `translate_errors`.
    """
    counted = connection.execute("SELECT * FROM login_ingest.rows_by_key(%s)", [name])
    return {key_id: int(rows) for key_id, rows in counted}


def lock_keys(
    connection: psycopg.Connection, logins: pl.DataFrame, sealed_bodies: Iterable[bytes] = ()
) -> None:
    """Keeps the keys of masked logins and sealed bodies from being retired before the commit.

    Raises:
        DatabaseError: a key is retired, or not registered.
        psycopg.Error: refused; wrap the call in `translate_errors`.
    """
    heads = {
        (field.name, head)
        for field in MASKED_FIELDS
        for head in logins[field.column].str.slice(0, KEY_HEAD_LENGTH[field.name]).unique()
    }
    keys = {(name, token_key_id(name, head)) for name, head in heads if head}
    keys |= {(QUARANTINE, sealed_key_id(body)) for body in sealed_bodies}
    held = sorted((name, key_id) for name, key_id in keys if key_id is not None)
    values = [[name for name, _ in held], [key_id for _, key_id in held]]
    for name, key_id, is_known in connection.execute(_LOCK_KEYS, values):
        raise DatabaseError(_unusable(name, key_id, is_known=is_known))


def _unusable(name: str, key_id: int, *, is_known: bool) -> str:
    why = "was retired after these keysets had been read" if is_known else "is not registered"
    return (
        f"what was masked is under key {key_id} of {name}, which {why}. Nothing of it was written:"
        " messages of a queue go back to it, and those of the quarantine stay there. What starts"
        " now masks them under the primary key."
    )


def write_links(connection: psycopg.Connection, links: Sequence[TokenLink]) -> None:
    """Links old tokens to new ones; others who link wait until the transaction has ended.

    Raises:
        psycopg.Error: refused; wrap the call in `translate_errors`.
    """
    if links:
        columns = zip(
            *((link.field, link.old_token, link.new_token) for link in links), strict=True
        )
        connection.execute(_LINK_TOKENS, [list(column) for column in columns])


def write_job_links(
    connection: psycopg.Connection, change: int, links: Sequence[TokenLink]
) -> None:
    """Links old tokens of one field to new ones, as a part of a change that is on record.

    Raises:
        psycopg.Error: refused; wrap the call in `translate_errors`.
    """
    if links:
        old_tokens = [link.old_token for link in links]
        new_tokens = [link.new_token for link in links]
        connection.execute(_LINK_TOKENS_IN_JOB, [change, old_tokens, new_tokens])


_RETIRED_KEYS = "SELECT keyset, key_id FROM login_ingest.masking_key WHERE retired_at IS NOT NULL"

_LOCK_KEYS = (
    "SELECT keyset, key_id, is_registered FROM login_ingest.lock_keys(%s::text[], %s::bigint[])"
)

_LINK_TOKENS = "SELECT login_ingest.link_tokens(%s::text[], %s::text[], %s::text[])"

_LINK_TOKENS_IN_JOB = "SELECT login_ingest.link_tokens_in_job(%s, %s::text[], %s::text[])"
