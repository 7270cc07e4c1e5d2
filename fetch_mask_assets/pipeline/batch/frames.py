"""A batch as frames: the messages one run received, and the same messages masked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import polars as pl

from fetch_mask_assets.keys.keyset import FieldMasker, Keyring, Sealer
from fetch_mask_assets.masking.version_number import version_number
from fetch_mask_assets.pipeline.contract.login_event import LoginEvent, decode_login_event
from fetch_mask_assets.pipeline.contract.rejection import Rejection

RAW_SCHEMA = pl.Schema(
    {
        "message_id": pl.String(),
        "receipt_handle": pl.String(),
        "sent_at": pl.Datetime("ms", "UTC"),
        "receive_count": pl.Int32(),
        "body": pl.String(),
    }
)
"""One line for each delivery, in the order in which the receivers saw them."""

MASKED_SCHEMA = pl.Schema(
    {
        "message_id": pl.String(),
        "sent_at": pl.Datetime("ms", "UTC"),
        "receive_count": pl.Int32(),
        "user_id": pl.String(),
        "device_type": pl.String(),
        "masked_ip": pl.String(),
        "masked_device_id": pl.String(),
        "locale": pl.String(),
        "app_version": pl.Int32(),
        "create_date": pl.Date(),
        "app_version_text": pl.String(),
        "extra_fields": pl.Int32(),
        "reason": pl.String(),
        "field": pl.String(),
        "sealed_body": pl.Binary(),
    }
)
"""One line for each line of the raw batch: a masked login, or a reason and the sealed body."""

LOGIN_COLUMNS = (
    "user_id",
    "device_type",
    "masked_ip",
    "masked_device_id",
    "locale",
    "app_version",
    "create_date",
)
"""The columns of `user_logins`, in their order."""


def mask_batch(raw: pl.DataFrame, keyring: Keyring) -> pl.DataFrame:
    """Decodes, validates and masks each message of a batch.

    Args:
        raw: a frame of `RAW_SCHEMA`.
        keyring: the keys; each distinct value is encrypted once.

    Returns:
        A frame of `MASKED_SCHEMA`, line by line the raw batch's.
    """
    decoded = [decode_login_event(body) for body in raw["body"]]
    accepted = [line if isinstance(line, LoginEvent) else None for line in decoded]
    rejected = [line if isinstance(line, Rejection) else None for line in decoded]
    columns = (
        raw.select("message_id", "sent_at", "receive_count").to_dict()
        | _login_columns(accepted, raw["sent_at"])
        | _token_columns(accepted, keyring.maskers)
        | _rejection_columns(rejected, raw, keyring.sealer)
    )
    return pl.DataFrame(columns, schema_overrides=MASKED_SCHEMA).select(MASKED_SCHEMA.names())


def rejected_count(masked: pl.DataFrame) -> int:
    """How many lines of a masked batch are rejections."""
    return masked["reason"].count()


def reason_counts(masked: pl.DataFrame) -> dict[str, int]:
    """How many messages were rejected for each reason, as `field: reason`, most first."""
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
    lines = raw.sort("receive_count", maintain_order=True)
    return dict(lines.select("message_id", "receipt_handle").iter_rows())


def _login_columns(
    accepted: Sequence[LoginEvent | None], sent_at: pl.Series
) -> dict[str, Iterable[object]]:
    days = sent_at.dt.date().to_list()
    versions = [event.app_version if event else None for event in accepted]
    numbers = {text: version_number(text) for text in set(versions) if text is not None}
    return {
        "user_id": _each(accepted, lambda event: event.user_id),
        "device_type": _each(accepted, lambda event: event.device_type),
        "locale": _each(accepted, lambda event: event.locale),
        "app_version": [numbers[text] if text is not None else None for text in versions],
        "app_version_text": versions,
        "create_date": [day if event else None for event, day in zip(accepted, days, strict=True)],
        "extra_fields": _each(accepted, lambda event: event.extra_fields),
    }


def _token_columns(
    accepted: Sequence[LoginEvent | None], maskers: Iterable[FieldMasker]
) -> dict[str, Iterable[object]]:
    return {masker.field.column: _tokens(accepted, masker) for masker in maskers}


def _tokens(accepted: Sequence[LoginEvent | None], masker: FieldMasker) -> list[str | None]:
    values = [getattr(event, masker.field.name) if event else None for event in accepted]
    tokens = {value: masker.mask(value) for value in set(values) if value is not None}
    return [tokens[value] if value is not None else None for value in values]


def _rejection_columns(
    rejected: Sequence[Rejection | None], raw: pl.DataFrame, sealer: Sealer
) -> dict[str, Iterable[object]]:
    messages = zip(rejected, raw["body"], raw["message_id"], strict=True)
    return {
        "reason": [why.reason.value if why else None for why in rejected],
        "field": [why.field if why else None for why in rejected],
        "sealed_body": [
            sealer.seal(body, message_id) if why else None for why, body, message_id in messages
        ],
    }


def _each(
    accepted: Iterable[LoginEvent | None], get: Callable[[LoginEvent], str | int | None]
) -> list[str | int | None]:
    return [get(event) if event else None for event in accepted]
