"""Commits a checked batch, or refuses it."""

from __future__ import annotations

import polars as pl

from fetch_mask_assets.errors import RulesBrokenError
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.pipeline.batch.balance import Balance
from fetch_mask_assets.pipeline.batch.checked_batch import CheckedBatch
from fetch_mask_assets.pipeline.warehouse.database import BatchToCommit, LoginDatabase


def commit_checked(database: LoginDatabase, run_id: str, batch: CheckedBatch) -> Balance:
    """Writes a batch that keeps every masking rule; an empty one writes nothing.

    Raises:
        RulesBrokenError: it breaks a rule; nothing was written.
        DatabaseError: nothing was written, or the outcome is unclear.
    """
    _refuse_broken(batch)
    if batch.masked.is_empty():
        return Balance()
    return database.commit_batch(_to_commit(run_id, batch))


def _refuse_broken(batch: CheckedBatch) -> None:
    # A run that was started without its checks must not write what they would have stopped.
    if batch.broken:
        counts = ", ".join(f"{name} ({count})" for name, count in batch.broken.items())
        raise RulesBrokenError(
            f"the masked batch breaks the masking rules {counts}: nothing was written, and the"
            " messages go back to the queue."
        )


def _to_commit(run_id: str, batch: CheckedBatch) -> BatchToCommit:
    bodies = batch.batch.raw.select("message_id", "body")

    def seal(message_id: str) -> bytes:
        body = bodies.filter(pl.col("message_id") == message_id)["body"][0]
        return batch.keyring.sealer.seal(body, message_id)

    return BatchToCommit(run_id, batch.masked, seal, batch_links(batch.masked, batch.keyring))
