"""The keys that a transaction writes under, kept from being retired until it has ended."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
import psycopg

from fetch_mask_assets.domain.errors import DatabaseError
from fetch_mask_assets.domain.key_ids import KEY_HEAD_LENGTH, sealed_key_id, token_key_id
from fetch_mask_assets.domain.keyset import QUARANTINE
from fetch_mask_assets.domain.masked_field import MASKED_FIELDS


def hold_keys(
    connection: psycopg.Connection, logins: pl.DataFrame, sealed_bodies: Iterable[bytes] = ()
) -> None:
    """Keeps the keys of masked logins and sealed bodies from being retired before the commit.

    Raises:
        DatabaseError: a key is retired, or not registered.
        psycopg.Error: refused; wrap the call in `plain_errors`.
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
    for name, key_id, is_known in connection.execute(_HOLD_KEYS, values):
        raise DatabaseError(_unusable(name, key_id, is_known=is_known))


def _unusable(name: str, key_id: int, *, is_known: bool) -> str:
    why = "was retired after these keysets had been read" if is_known else "is not registered"
    return (
        f"what was masked is under key {key_id} of {name}, which {why}. Nothing of it was written:"
        " messages of a queue go back to it, and those of the quarantine stay there. What starts"
        " now masks them under the primary key."
    )


_HOLD_KEYS = "SELECT keyset, key_id, is_known FROM login_ingest.hold_keys(%s::text[], %s::bigint[])"
