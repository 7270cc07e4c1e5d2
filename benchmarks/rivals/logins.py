"""A login event as a row, as the rivals make it."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

COLUMNS = (
    "user_id",
    "device_type",
    "masked_ip",
    "masked_device_id",
    "locale",
    "app_version",
    "create_date",
)

Row = tuple[str, str, str, str, str | None, int, date]

_KEY = b"a key of the benchmark, 32 bytes"


def hmac_sha256(value: str) -> str:
    """The keyed digest of a value, in hexadecimal digits."""
    return hmac.digest(_KEY, value.encode(), "sha256").hex()


def as_row(message: Mapping[str, Any], mask: Callable[[str], str] = hmac_sha256) -> Row:
    """The row of a message, in the order of `COLUMNS`."""
    event = json.loads(message["Body"])
    sent_at = datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1_000, UTC)
    return (
        event["user_id"],
        event["device_type"],
        mask(event["ip"]),
        mask(event["device_id"]),
        event["locale"],
        version_number(event["app_version"]),
        sent_at.date(),
    )


def version_number(text: str) -> int:
    """A version of three parts as an integer that keeps their order."""
    major, minor, patch = map(int, text.split("."))
    return major * 1_000_000 + minor * 1_000 + patch


def as_records(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of messages by the names of their columns."""
    return [dict(zip(COLUMNS, as_row(message), strict=True)) for message in messages]
