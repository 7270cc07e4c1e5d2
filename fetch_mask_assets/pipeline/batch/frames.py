"""A batch as frames: the messages one run received, and the same messages masked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import polars as pl

from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.masker import FieldMasker, Sealer
from fetch_mask_assets.masking.fields import CLEAR_FIELDS, COLUMN_FIELDS, ClearField, MaskedField
from fetch_mask_assets.pipeline.contract.decoding import decode_bodies

RAW_SCHEMA = pl.Schema(
    {
        "message_id": pl.String(),
        "sent_at": pl.Datetime("ms", "UTC"),
        "receive_count": pl.Int32(),
        "body": pl.String(),
    }
)
"""One row for each delivery, in the order in which the receivers saw them."""

NUMBER_FIELDS = tuple(field for field in CLEAR_FIELDS if field.number)
"""The fields that the table holds as numbers; a masked batch has their texts beside them."""


def text_column(field: ClearField) -> str:
    """The column of a masked batch that has the text of a field that is a number."""
    return f"{field.name}_text"


def _column_type(field: ClearField | MaskedField) -> pl.DataType:
    return pl.Int32() if field in NUMBER_FIELDS else pl.String()


LOGIN_COLUMNS = (*(field.column for field in COLUMN_FIELDS), "create_date")
"""The columns of `user_logins`, in their order."""

LOGIN_DETAILS = (*map(text_column, NUMBER_FIELDS), "extra_fields")
"""The columns of a masked login that are not in `user_logins`."""

MASKED_SCHEMA = pl.Schema(
    {
        "message_id": pl.String(),
        "sent_at": pl.Datetime("ms", "UTC"),
        "receive_count": pl.Int32(),
        **{field.column: _column_type(field) for field in COLUMN_FIELDS},
        "create_date": pl.Date(),
        **{text_column(field): pl.String() for field in NUMBER_FIELDS},
        "extra_fields": pl.Int32(),
        "reason": pl.String(),
        "field": pl.String(),
        "sealed_body": pl.Binary(),
    }
)
"""One row for each row of the raw batch: a masked login, or a reason and the sealed body."""


def mask_batch(raw: pl.DataFrame, keyring: Keyring) -> pl.DataFrame:
    """Decodes, checks and masks each message of a batch.

    Args:
        raw: a frame of `RAW_SCHEMA`.
        keyring: the keys; each distinct value is encrypted once.

    Returns:
        A frame of `MASKED_SCHEMA`, row by row the raw batch's.
    """
    events = decode_bodies(raw["body"])
    is_login = events["reason"].is_null()
    return pl.DataFrame(
        [
            *raw.select("message_id", "sent_at", "receive_count"),
            *_clear_columns(events),
            *(_tokens(events, masker) for masker in keyring.maskers),
            raw.select(create_date=pl.when(is_login).then(pl.col("sent_at").dt.date())).to_series(),
            *events.select("extra_fields", "reason", "field"),
            _sealed_bodies(raw, ~is_login, keyring.sealer),
        ]
    ).select(MASKED_SCHEMA.names())


def rejected_count(masked: pl.DataFrame) -> int:
    """The number of rows of a masked batch that are rejections."""
    return masked["reason"].count()


def reason_counts(masked: pl.DataFrame) -> dict[str, int]:
    """The number of messages rejected for each `field: reason`, most frequent first."""
    reasons = (
        masked.filter(pl.col("reason").is_not_null())
        .select(why=pl.concat_str("field", "reason", separator=": ", ignore_nulls=True))
        .group_by("why")
        .len()
        .sort(["len", "why"], descending=[True, False])
    )
    return dict(reasons.iter_rows())


def in_rows(is_there: pl.Series, values: pl.Series) -> pl.Series:
    """The values, one after another, in the rows that are true; null in the others."""
    places = pl.select(pl.when(is_there).then(is_there.cum_sum() - 1)).to_series()
    return values.gather(places)


def _clear_columns(events: pl.DataFrame) -> Iterator[pl.Series]:
    for field in CLEAR_FIELDS:
        texts = events[field.name]
        yield _numbers(texts, field.number) if field.number else texts
        if field.number:
            yield texts.alias(text_column(field))


def _numbers(texts: pl.Series, number: Callable[[str], int | None]) -> pl.Series:
    distinct = texts.drop_nulls().unique()
    numbers = pl.Series([number(text) for text in distinct], dtype=pl.Int32)
    # An empty column keeps its type.
    return texts.replace_strict(distinct, numbers).cast(pl.Int32)


def _tokens(events: pl.DataFrame, masker: FieldMasker) -> pl.Series:
    return masker.mask_column(events[masker.field.name]).alias(masker.field.column)


def _sealed_bodies(raw: pl.DataFrame, is_rejected: pl.Series, sealer: Sealer) -> pl.Series:
    """The sealed body of each rejected message; null beside the logins."""
    messages = raw.filter(is_rejected).select("body", "message_id").iter_rows()
    sealed = pl.Series("sealed_body", [sealer.seal(*each) for each in messages], pl.Binary)
    return in_rows(is_rejected, sealed)
