"""Replay: quarantined messages pass through the current contract and masking rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from fetch_mask_assets.errors import RulesBrokenError, TokenError
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.links import TokenLink, batch_links
from fetch_mask_assets.keys.masker import Sealer
from fetch_mask_assets.pipeline.batch.checked_batch import mask_and_check
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS, RAW_SCHEMA


@dataclass(frozen=True, slots=True)
class SealedMessage:
    """A quarantined message, as it is locked for a replay."""

    message_id: str
    sent_at: datetime
    receive_count: int
    sealed_body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """Masked messages that keep every rule: logins to load, and messages still rejected.

    `unreadable` counts the messages that the keyset of the quarantine does not open.
    """

    logins: pl.DataFrame
    rejected: pl.DataFrame
    links: tuple[TokenLink, ...]
    unreadable: int

    def logins_json(self) -> str:
        """The logins as a JSON array, with the message id and the version text."""
        return self.logins.select("message_id", *LOGIN_COLUMNS, "app_version_text").write_json()

    def rejected_json(self) -> str:
        """The messages still rejected as a JSON array: message id, reason, field."""
        return self.rejected.select("message_id", "reason", "field").write_json()


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The outcome of a replay, in messages; `unreadable` ones are among the still rejected."""

    replayed: int = 0
    still_rejected: int = 0
    unreadable: int = 0

    @property
    def messages(self) -> int:
        """The number of messages that were processed."""
        return self.replayed + self.still_rejected


def mask_quarantined(messages: Sequence[SealedMessage], keyring: Keyring) -> ReplayBatch:
    """Open, decode and mask messages, and check the masking rules.

    Raises:
        RulesBrokenError: masked messages break a rule; nothing may be written.
    """
    raw = _open(messages, keyring.sealer)
    checked = mask_and_check(raw, keyring)
    _require_rules(checked.broken)
    masked = checked.masked
    logins = masked.filter(pl.col("reason").is_null())
    return ReplayBatch(
        logins=logins,
        rejected=masked.filter(pl.col("reason").is_not_null()),
        links=batch_links(logins, keyring),
        unreadable=len(messages) - raw.height,
    )


def _open(messages: Iterable[SealedMessage], sealer: Sealer) -> pl.DataFrame:
    """The raw batch of the messages that open."""
    rows = []
    for each in messages:
        try:
            body = sealer.open(each.sealed_body, each.message_id)
        except TokenError:
            continue
        rows.append((each.message_id, each.sent_at.astimezone(UTC), each.receive_count, body))
    return pl.DataFrame(rows, schema=RAW_SCHEMA, orient="row")


def _require_rules(broken: Mapping[str, int]) -> None:
    if broken:
        counts = ", ".join(f"{name} ({count})" for name, count in broken.items())
        raise RulesBrokenError(
            f"the masked messages break the masking rules {counts}. None of these messages was"
            " written; they stay in the quarantine."
        )
