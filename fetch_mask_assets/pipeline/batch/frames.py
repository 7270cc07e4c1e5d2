"""A batch as frames: the messages one run received, and the same messages masked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import polars as pl

from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.masker import FieldMasker, Sealer
from fetch_mask_assets.masking.fields import CLEAR_FIELDS, COLUMN_FIELDS, ClearField, MaskedField
from fetch_mask_assets.pipeline.contract.login_event import LoginEvent, decode_login_event
from fetch_mask_assets.pipeline.contract.rejection import Rejection

_T = TypeVar("_T")

RAW_SCHEMA = pl.Schema(
    {
        "message_id": pl.String(),
        "receipt_handle": pl.String(),
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
    decoded = [decode_login_event(body) for body in raw["body"]]
    events = [each if isinstance(each, LoginEvent) else None for each in decoded]
    rejections = [each if isinstance(each, Rejection) else None for each in decoded]
    columns = (
        raw.select("message_id", "sent_at", "receive_count").to_dict()
        | _clear_columns(events)
        | _token_columns(events, keyring.maskers)
        | _event_columns(events, raw["sent_at"])
        | _rejection_columns(rejections, raw, keyring.sealer)
    )
    return pl.DataFrame(columns, schema_overrides=MASKED_SCHEMA).select(MASKED_SCHEMA.names())


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


def newest_handles(raw: pl.DataFrame) -> dict[str, str]:
    """For each message id the newest receipt handle, which alone deletes it.

    It is the one with the greatest receive count, and of equal ones the last: several receivers'
    deliveries are not in the order in which the queue made them.
    """
    rows = raw.sort("receive_count", maintain_order=True)
    return dict(rows.select("message_id", "receipt_handle").iter_rows())


_Columns = dict[str, Iterable[object]]


def _clear_columns(events: Sequence[LoginEvent | None]) -> _Columns:
    columns: _Columns = {}
    for field in CLEAR_FIELDS:
        texts = _values(events, field.name)
        columns[field.column] = texts
        if field.number:
            columns[text_column(field)] = texts
            columns[field.column] = _each_distinct(texts, field.number)
    return columns


def _token_columns(events: Sequence[LoginEvent | None], maskers: Iterable[FieldMasker]) -> _Columns:
    return {
        masker.field.column: _each_distinct(_values(events, masker.field.name), masker.mask)
        for masker in maskers
    }


def _event_columns(events: Sequence[LoginEvent | None], sent_at: pl.Series) -> _Columns:
    days = sent_at.dt.date().to_list()
    return {
        "create_date": [day if event else None for event, day in zip(events, days, strict=True)],
        "extra_fields": [event.extra_fields if event else None for event in events],
    }


def _values(events: Sequence[LoginEvent | None], name: str) -> list[str | None]:
    return [event.values[name] if event else None for event in events]


def _each_distinct(texts: Sequence[str | None], work: Callable[[str], _T]) -> list[_T | None]:
    """The result for each text, worked out once for each distinct one; None stays None."""
    results = {text: work(text) for text in set(texts) if text is not None}
    return [None if text is None else results[text] for text in texts]


def _rejection_columns(
    rejections: Sequence[Rejection | None], raw: pl.DataFrame, sealer: Sealer
) -> _Columns:
    messages = zip(rejections, raw["body"], raw["message_id"], strict=True)
    return {
        "reason": [why.reason.value if why else None for why in rejections],
        "field": [why.field if why else None for why in rejections],
        "sealed_body": [
            sealer.seal(body, message_id) if why else None for why, body, message_id in messages
        ],
    }
