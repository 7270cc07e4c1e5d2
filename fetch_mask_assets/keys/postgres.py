"""Keys in the database: registry, usage, key locks and links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import polars as pl
import psycopg

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.keyset import QUARANTINE
from fetch_mask_assets.keys.links import TokenLink
from fetch_mask_assets.keys.registry import (
    CheckValues,
    RegisteredKey,
    RetiredCheckValue,
    key_conflicts,
)
from fetch_mask_assets.masking.fields import MASKED_FIELDS
from fetch_mask_assets.masking.token import key_head_length, sealed_key_id, token_key_id
from fetch_mask_assets.postgres.locks import REGISTRY, acquire_lock
from fetch_mask_assets.postgres.sessions import COMMIT, LONG_READ, READ, open_session


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """The keys of one keyset, by key id: their entries in the registry, and their rows."""

    registered: Mapping[int, RegisteredKey]
    rows: Mapping[int, int]


def key_usage(database_url: str, name: str) -> KeyUsage:
    """The registered keys of a keyset and the rows under each; reads the whole table.

    Raises:
        DatabaseError: the registry or the tokens cannot be read.
    """
    with open_session(database_url, LONG_READ, "count rows by key") as connection:
        return KeyUsage(registered_keys(connection, name), rows_by_key(connection, name))


def retired_keys(database_url: str) -> frozenset[tuple[str, int]]:
    """The retired keys, as names of keysets and key ids.

    Raises:
        DatabaseError: the registry cannot be read.
    """
    with open_session(database_url, READ, "read the retired keys") as connection:
        return frozenset(connection.execute(_RETIRED_KEYS).fetchall())


def registry_conflicts(database_url: str, present: CheckValues) -> tuple[str, ...]:
    """The reasons why keysets do not fit the key registry; empty if they fit.

    Raises:
        DatabaseError: the registry cannot be read.
    """
    with open_session(database_url, READ, "read the key registry") as connection:
        return key_conflicts(_registered_check_values(connection), present)


def register_keys(database_url: str, present: CheckValues) -> tuple[str, ...]:
    """Register keys before their first use, unless they conflict.

    Returns:
        The conflicts; if there is one, nothing was registered.

    Raises:
        DatabaseError: the registry cannot be read or written.
    """
    with open_session(database_url, COMMIT, "register keys") as connection:
        # Of two workers with different new keysets, only the first may find the registry empty.
        acquire_lock(connection, REGISTRY)
        conflicts = key_conflicts(_registered_check_values(connection), present)
        if not conflicts:
            _insert_keys(connection, present)
        return conflicts


def _registered_check_values(connection: psycopg.Connection) -> CheckValues:
    rows = connection.execute(_READ_CHECK_VALUES).fetchall()
    return {
        name: {
            key_id: RetiredCheckValue(check) if is_retired else bytes(check)
            for _, key_id, check, is_retired in keys
        }
        for name, keys in groupby(rows, key=itemgetter(0))
    }


def _insert_keys(connection: psycopg.Connection, present: CheckValues) -> None:
    keys = [
        (name, key_id, check)
        for name, checks in present.items()
        for key_id, check in checks.items()
    ]
    if keys:
        columns = [list(column) for column in zip(*keys, strict=True)]
        connection.execute(_REGISTER_KEYS, columns)


def registered_keys(connection: psycopg.Connection, name: str) -> dict[int, RegisteredKey]:
    """A keyset's entries in the registry, by key id, the oldest first.

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
    """The number of tokens, or of sealed messages, under each key of a keyset, by key id.

    Raises:
        psycopg.Error: wrap the call in `translate_errors`.
    """
    counted = connection.execute("SELECT * FROM login_ingest.rows_by_key(%s)", [name])
    return {key_id: int(rows) for key_id, rows in counted}


def lock_keys(
    connection: psycopg.Connection, logins: pl.DataFrame, sealed_bodies: Iterable[bytes] = ()
) -> None:
    """Lock the keys of masked logins and sealed bodies against retirement until the commit.

    Raises:
        DatabaseError: a key is retired, or not registered.
        psycopg.Error: refused; wrap the call in `translate_errors`.
    """
    heads = {
        (field, head)
        for field in MASKED_FIELDS
        for head in logins[field.column].str.slice(0, key_head_length(field)).unique()
    }
    keys = {(field.name, token_key_id(field, head)) for field, head in heads if head}
    keys |= {(QUARANTINE, sealed_key_id(body)) for body in sealed_bodies}
    used = sorted((name, key_id) for name, key_id in keys if key_id is not None)
    values = [[name for name, _ in used], [key_id for _, key_id in used]]
    for name, key_id, is_registered in connection.execute(_LOCK_KEYS, values):
        raise DatabaseError(_unusable(name, key_id, is_registered=is_registered))


def _unusable(name: str, key_id: int, *, is_registered: bool) -> str:
    why = "was retired after the keysets were read" if is_registered else "is not registered"
    return (
        f"values were masked or sealed under key {key_id} of {name}, which {why}. Nothing was"
        " written: messages of a queue go back to it, and quarantined messages stay. The next"
        " run masks them under the primary key."
    )


def write_links(connection: psycopg.Connection, links: Sequence[TokenLink]) -> None:
    """Link old tokens to new ones; other writers of links wait for the end of the transaction.

    Raises:
        psycopg.Error: refused; wrap the call in `translate_errors`.
    """
    if links:
        columns = zip(
            *((link.field, link.old_token, link.new_token) for link in links), strict=True
        )
        connection.execute(_LINK_TOKENS, [list(column) for column in columns])


def write_job_links(connection: psycopg.Connection, job: int, links: Sequence[TokenLink]) -> None:
    """Link old tokens of one field to new ones, as part of a recorded re-masking job.

    Raises:
        psycopg.Error: refused; wrap the call in `translate_errors`.
    """
    if links:
        old_tokens = [link.old_token for link in links]
        new_tokens = [link.new_token for link in links]
        connection.execute(_LINK_TOKENS_IN_JOB, [job, old_tokens, new_tokens])


_READ_CHECK_VALUES = """
SELECT keyset, key_id, check_value, retired_at IS NOT NULL FROM login_ingest.masking_key
ORDER BY keyset
"""

_REGISTER_KEYS = "SELECT login_ingest.register_keys(%s::text[], %s::bigint[], %s::bytea[])"

_RETIRED_KEYS = "SELECT keyset, key_id FROM login_ingest.masking_key WHERE retired_at IS NOT NULL"

_LOCK_KEYS = (
    "SELECT keyset, key_id, is_registered FROM login_ingest.lock_keys(%s::text[], %s::bigint[])"
)

_LINK_TOKENS = "SELECT login_ingest.link_tokens(%s::text[], %s::text[], %s::text[])"

_LINK_TOKENS_IN_JOB = "SELECT login_ingest.link_tokens_in_job(%s, %s::text[], %s::text[])"
