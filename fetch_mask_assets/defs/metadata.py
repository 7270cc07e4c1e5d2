"""Metadata of the assets in the Dagster UI: columns, lineage, counts. Never a value of a row."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import polars as pl
from dagster import (
    AssetKey,
    AssetMaterialization,
    MetadataValue,
    TableColumn,
    TableColumnDep,
    TableColumnLineage,
    TableRecord,
    TableSchema,
)

from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.masking.fields import COLUMN_FIELDS
from fetch_mask_assets.pipeline.batch.balance import Balance
from fetch_mask_assets.pipeline.batch.frames import (
    LOGIN_COLUMNS,
    MASKED_SCHEMA,
    NUMBER_FIELDS,
    RAW_SCHEMA,
    reason_counts,
    rejected_count,
    text_column,
)
from fetch_mask_assets.pipeline.batch.thresholds import oldest_age_seconds
from fetch_mask_assets.pipeline.queue.login_queue import ReceiveResult
from fetch_mask_assets.pipeline.queue.sqs.batch_requests import BatchResult

Metadata = dict[str, Any]

_DESCRIPTIONS = {
    "message_id": "SQS MessageId, the only identity of a message.",
    "sent_at": "When SQS accepted the message.",
    "receive_count": "How often the message has been received.",
    "body": "The login event in JSON, in the clear. In memory only.",
    **{field.column: field.description for field in COLUMN_FIELDS},
    "create_date": "The UTC day on which SQS accepted the message.",
    **{text_column(field): f"The text of {field.name} as it came." for field in NUMBER_FIELDS},
    "extra_fields": "How many fields the event had beyond the contract's.",
    "reason": "The reason for rejecting the message, or null.",
    "field": "The field that broke the contract.",
    "sealed_body": "The body of a rejected message, encrypted.",
}

_TABLE_TYPES = {field.column: field.sql_type for field in COLUMN_FIELDS} | {"create_date": "date"}


def _columns(types: dict[str, str]) -> TableSchema:
    return TableSchema(
        columns=[
            TableColumn(name=name, type=kind, description=_DESCRIPTIONS[name])
            for name, kind in types.items()
        ]
    )


def _frame_columns(schema: pl.Schema) -> TableSchema:
    return _columns({name: str(kind) for name, kind in schema.items()})


def _lineage(**columns: tuple[str, str]) -> TableColumnLineage:
    """The lineage of columns, given the asset and the column that each comes from."""
    return TableColumnLineage(
        deps_by_column={
            name: [TableColumnDep(asset_key=AssetKey(asset), column_name=column)]
            for name, (asset, column) in columns.items()
        }
    )


_FROM_MESSAGE = ("message_id", "sent_at", "receive_count")
_FROM_BODY = set(MASKED_SCHEMA.names()) - {*_FROM_MESSAGE, "create_date"}

RAW_LINEAGE = _lineage(**{name: ("login_queue", name) for name in RAW_SCHEMA.names()})
MASKED_LINEAGE = _lineage(
    **dict.fromkeys(_FROM_BODY, ("raw_login_batch", "body")),
    **{name: ("raw_login_batch", name) for name in _FROM_MESSAGE},
    create_date=("raw_login_batch", "sent_at"),
)
TABLE_LINEAGE = _lineage(**{name: ("masked_logins", name) for name in LOGIN_COLUMNS})

MESSAGES_DEFINITION: Metadata = {"dagster/column_schema": _frame_columns(RAW_SCHEMA)}
MASKED_DEFINITION: Metadata = {"dagster/column_schema": _frame_columns(MASKED_SCHEMA)}
TABLE_DEFINITION: Metadata = {
    "dagster/column_schema": _columns(_TABLE_TYPES),
    "dagster/table_name": "user_logins",
}


def receive_metadata(received: ReceiveResult, raw: pl.DataFrame, now: datetime) -> Metadata:
    """Counts, rate and age of the received messages.

    `raw` is the batch without the messages that returned to the queue.
    """
    return {
        "dagster/row_count": raw.height,
        "dagster/column_lineage": RAW_LINEAGE,
        "messages": raw.height,
        "returned_to_queue": received.raw.height - raw.height,
        "body_bytes": int(raw["body"].str.len_bytes().sum()),
        "receive_requests": received.requests,
        "receive_seconds": round(received.seconds, 3),
        "messages_per_second": _rate(raw.height, received.seconds),
        "end_reason": received.end.value,
        "redelivered": raw.filter(pl.col("receive_count") > 1).height,
        "oldest_message_age_at_receive_seconds": round(oldest_age_seconds(raw, now), 1),
    }


def masking_metadata(masked: pl.DataFrame, keyring: Keyring, seconds: float) -> Metadata:
    """Counts of logins, rejections and tokens, the reasons for rejection and the primary keys."""
    logins = masked.filter(pl.col("reason").is_null())
    distinct = {
        f"distinct_{each.field.name}s": logins[each.field.column].n_unique()
        for each in keyring.maskers
    }
    return distinct | {
        "dagster/row_count": masked.height,
        "dagster/column_lineage": MASKED_LINEAGE,
        "logins": logins.height,
        "rejected": rejected_count(masked),
        "rejected_percent": 100.0 * _share(rejected_count(masked), masked.height),
        "rejected_by_reason": _counts_table("reason", reason_counts(masked)),
        "unparsed_versions": logins["app_version"].null_count(),
        "events_with_extra_fields": logins.filter(pl.col("extra_fields") > 0).height,
        "tokens_per_key": _counts_table(
            "key",
            {
                f"{each.field.name} {each.primary_key_id}": logins[each.field.column].count()
                for each in keyring.maskers
            },
        ),
        "mask_seconds": round(seconds, 3),
        "messages_per_second": _rate(masked.height, seconds),
    }


def commit_metadata(
    balance: Balance, deleted: BatchResult, stages: Mapping[str, float]
) -> Metadata:
    """The balance, the deleted messages and the seconds of each stage of the run."""
    commit = stages.get("commit_seconds", 0.0)
    return {
        "dagster/column_lineage": TABLE_LINEAGE,
        "balance": MetadataValue.md(_balance_picture(balance)),
        "stages": MetadataValue.md(_stages_picture(stages)),
        **balance.as_counts(),
        "deleted_from_queue": deleted.succeeded,
        "not_deleted": deleted.failed,
        **{name: round(seconds, 3) for name, seconds in stages.items()},
        "rows_per_second": _rate(balance.loaded, commit),
    }


def arrival_metadata(raw: pl.DataFrame, masked: pl.DataFrame, now: datetime) -> Metadata:
    """The age of the oldest message at its commit, and the reasons for rejection."""
    return {
        "oldest_message_age_at_commit_seconds": round(oldest_age_seconds(raw, now), 1),
        "rejected_by_reason": _counts_table("reason", reason_counts(masked)),
    }


def stage_seconds(materializations: Iterable[AssetMaterialization]) -> dict[str, float]:
    """The seconds of the run's earlier stages, by name."""
    return {
        name: value.value
        for materialization in materializations
        for name, value in materialization.metadata.items()
        if name in {"receive_seconds", "mask_seconds"} and isinstance(value.value, float)
    }


def _balance_picture(balance: Balance) -> str:
    counts = balance.as_counts()
    received = counts.pop("received")
    rows = [
        f"| {name.replace('_', ' ')} | {count} | {_bar(count, received)} |"
        for name, count in counts.items()
    ]
    sign = "=" if balance.holds else "is NOT"
    sentence = f"**{received} received {sign} {' + '.join(str(each) for each in counts.values())}**"
    return "\n".join([sentence, "", "| | messages | |", "|---|---|---|", *rows])


def _stages_picture(stages: Mapping[str, float]) -> str:
    longest = sum(stages.values())
    rows = [
        f"| {name.removesuffix('_seconds')} | {seconds:.3f} | {_bar(seconds, longest)} |"
        for name, seconds in stages.items()
    ]
    return "\n".join(["| stage | seconds | |", "|---|---|---|", *rows])


def _bar(part: float, whole: float) -> str:
    return "█" * round(20 * _share(part, whole)) or "·"


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 1) if seconds else 0.0


def _counts_table(name: str, counts: dict[str, int]) -> MetadataValue[Any]:
    records = [TableRecord({name: key, "messages": count}) for key, count in counts.items()]
    schema = TableSchema(columns=[TableColumn(name, "string"), TableColumn("messages", "int")])
    return MetadataValue.table(records=records, schema=schema)
