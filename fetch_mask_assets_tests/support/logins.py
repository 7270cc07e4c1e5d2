"""Login events, messages and batches that several tests need."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import polars as pl
import psycopg

from fetch_mask_assets.pipeline.batch.frames import RAW_SCHEMA, mask_batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mypy_boto3_sqs import SQSClient

    from fetch_mask_assets.keys.keyset import Keyring

SENT_AT = datetime(2024, 2, 29, 23, 59, 59, 500_000, UTC)


def body(number: int, **changes: object) -> str:
    """A login event; numbers apart by 200 share an IP, others share nothing."""
    login: dict[str, object] = {
        "user_id": f"user-{number}",
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": f"192.0.2.{number % 200}",
        "locale": "en_US",
        "device_id": f"device-{number:08}",
    }
    return json.dumps(login | changes)


def bodies(count: int) -> list[str]:
    """Login events, each of another device."""
    return [body(number) for number in range(count)]


def send(sqs: SQSClient, queue_url: str, texts: Iterable[str]) -> list[str]:
    """Sends messages; their message ids."""
    return [sqs.send_message(QueueUrl=queue_url, MessageBody=text)["MessageId"] for text in texts]


def register(url: str, keyring: Keyring) -> None:
    """Registers the keys of a keyring, whatever other keys it lacks."""
    keys = [
        (name, key_id, check)
        for name, checks in keyring.check_values.items()
        for key_id, check in checks.items()
    ]
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT login_ingest.register_keys(%s::text[], %s::bigint[], %s::bytea[])",
            [list(column) for column in zip(*keys, strict=True)],
        )


def raw_batch(texts: Sequence[str], ids: Sequence[str] | None = None) -> pl.DataFrame:
    """A raw batch as if it had been received, under new message ids unless some are given."""
    message_ids = ids or [str(uuid4()) for _ in texts]
    lines = [
        (message_id, SENT_AT, 1, text) for message_id, text in zip(message_ids, texts, strict=True)
    ]
    return pl.DataFrame(lines, schema=RAW_SCHEMA, orient="row")


def masked_batch(
    keyring: Keyring, texts: Sequence[str], ids: Sequence[str] | None = None
) -> pl.DataFrame:
    """A masked batch, ready to be committed."""
    return mask_batch(raw_batch(texts, ids), keyring)
