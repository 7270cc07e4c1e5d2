"""The rules on a masked batch as a frame: its rows, its columns, its sealed bodies."""

from __future__ import annotations

import polars as pl

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.masker import Sealer
from fetch_mask_assets.masking.fields import MASKED_FIELDS
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS, LOGIN_DETAILS, MASKED_SCHEMA
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch, MaskingRule, complete

_IS_LOGIN = pl.all_horizontal(
    pl.col([field.column for field in MASKED_FIELDS if field.is_required]).is_not_null(),
    pl.col("reason", "sealed_body").is_null(),
)
_IS_REJECT = pl.all_horizontal(
    pl.col(*LOGIN_COLUMNS, *LOGIN_DETAILS).is_null(),
    pl.col("reason", "sealed_body").is_not_null(),
)


def _unaccounted(batch: MaskedBatch) -> int:
    masked = complete(batch.masked)
    height = batch.rows.height
    received, kept = batch.raw["message_id"], masked["message_id"]
    foreign = int(received.head(height).ne_missing(kept.head(height)).sum())
    neither_or_both = masked.filter(_IS_LOGIN == _IS_REJECT).height
    return abs(len(received) - len(kept)) + foreign + neither_or_both


EVERY_MESSAGE_ACCOUNTED_FOR = MaskingRule(
    "every_message_accounted_for",
    "Each message received is one row: a masked login, or a reason with the sealed body.",
    "Nothing was written; the messages are back on the queue. This is a defect of the pipeline:"
    " stop the sensor and report it.",
    _unaccounted,
)


def _foreign_columns(batch: MaskedBatch) -> int:
    return len(dict(batch.masked.schema).items() ^ dict(MASKED_SCHEMA).items())


NO_FOREIGN_COLUMN = MaskingRule(
    "no_unexpected_column",
    "The masked frame has the columns of its schema and no others.",
    "Nothing was written. A change to the masking added, lost or retyped a column: revert it.",
    _foreign_columns,
)


def _unopened_bodies(batch: MaskedBatch) -> int:
    sealed = batch.rows.select("sealed_body", "message_id", "body").drop_nulls()
    return sum(not _opens_to(batch.keyring.sealer, *row) for row in sealed.iter_rows())


def _opens_to(sealer: Sealer, sealed: bytes, message_id: str, body: str) -> bool:
    try:
        return sealer.open(sealed, message_id) == body
    except TokenError:
        return False


SEALED_BODIES_OPEN = MaskingRule(
    "sealed_bodies_can_be_opened",
    "Every sealed body opens to the body of its message.",
    "Nothing was written. A change to the sealing would lose or reveal rejected messages: revert"
    " it.",
    _unopened_bodies,
)
