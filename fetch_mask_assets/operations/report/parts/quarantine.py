"""The quarantine: waiting messages by reason, and the account of all that were quarantined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from fetch_mask_assets.operations.report.part import (
    Block,
    Judgement,
    Source,
    WarehousePart,
    broken,
    shown_code,
    table,
)


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """The waiting messages of one reason; `field` is empty if the whole body was rejected."""

    field: str
    reason: str
    messages: int
    messages_in_period: int


@dataclass(frozen=True, slots=True)
class QuarantineAccount:
    """All messages that were ever quarantined, by what became of them."""

    quarantined: int
    replayed: int
    discarded: int
    expired: int
    erased: int
    waiting: int
    holds: bool


@dataclass(frozen=True, slots=True)
class Quarantine(WarehousePart):
    """The quarantine."""

    name: ClassVar[str] = "quarantine"
    title: ClassVar[str] = "Quarantine"
    promise: ClassVar[str] = (
        "Every quarantined message is waiting, replayed, discarded, expired or erased."
    )
    about: ClassVar[str] = (
        "Messages that broke the contract. Their bodies are sealed under a key of their own; only"
        " the reason is in the clear."
    )

    reasons: tuple[ReasonCount, ...]
    account: QuarantineAccount

    @classmethod
    def read(cls, source: Source) -> Self:
        """Read the facts."""
        reasons = source.rows(ReasonCount, _REASONS)
        [account] = source.rows(QuarantineAccount, _ACCOUNT)
        return cls(tuple(map(_shown, reasons)), account)

    def figure(self) -> str:
        """Return the numbers that matter most."""
        return f"{self.account.waiting:,} messages waiting"

    def judgements(self) -> Iterator[Judgement]:
        """Return the conditions of findings."""
        yield broken(
            not self.account.holds,
            "the account of the quarantine does not add up.",
        )

    def details(self) -> Iterator[Block]:
        """Return the tables behind the figure."""
        yield from table("All quarantined messages", [self.account])
        yield from table("Waiting messages by reason", self.reasons)


def _shown(count: ReasonCount) -> ReasonCount:
    field = shown_code(count.field) if count.field else ""
    return replace(count, field=field, reason=shown_code(count.reason))


_REASONS = """
SELECT field, reason, count(*) AS messages,
       count(*) FILTER (WHERE quarantined_at >= %(since)s AND quarantined_at < %(until)s)
           AS messages_in_period
FROM login_ingest.quarantine GROUP BY field, reason ORDER BY messages DESC, reason, field
"""

_ACCOUNT = """
SELECT quarantined, replayed, discarded, expired, erased, waiting, holds
FROM login_ingest.quarantine_balance
"""
