"""What several tests put into a warehouse: logins, and quarantined messages."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets_tests.support.logins import masked_batch, register

if TYPE_CHECKING:
    from fetch_mask_assets.keys.keyset import Keyring


def load(url: str, keyring: Keyring, texts: list[str]) -> list[str]:
    """Loads bodies as the pipeline does; their message ids, in order."""
    ids = sorted(str(uuid4()) for _ in texts)
    masked = masked_batch(keyring, texts, ids)
    register(url, keyring)
    commit_batch(url, BatchToCommit(str(uuid4()), masked, lambda _id: b""))
    return ids


def quarantine_bodies(url: str, keyring: Keyring, texts: list[str]) -> list[str]:
    """Quarantines bodies that are no logins; their message ids, in order."""
    assert masked_batch(keyring, texts)["reason"].null_count() == 0
    return load(url, keyring, texts)


def quarantine_logins(url: str, keyring: Keyring, texts: list[str]) -> list[str]:
    """Quarantines what is a login today, as an older contract would have."""
    ids = quarantine_bodies(url, keyring, ["junk"] * len(texts))
    with psycopg.connect(url) as connection:
        for message_id, text in zip(ids, texts, strict=True):
            connection.execute(
                "UPDATE login_ingest.quarantine SET sealed_body = %s WHERE message_id = %s",
                [keyring.sealer.seal(text, message_id), message_id],
            )
    return ids
