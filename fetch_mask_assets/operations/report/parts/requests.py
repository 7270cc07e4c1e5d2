"""The requests to unmask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Self

from fetch_mask_assets.operations.report.part import (
    Block,
    Judgement,
    Source,
    WarehousePart,
    shown_ticket,
    table,
)


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request to unmask; `reveals` is None if the audit could not be read."""

    request_id: int
    requested_at: datetime
    requester: str
    ticket: str
    tokens: int
    approver: str | None
    expires_at: datetime | None
    state: str
    reveals: int | None = None


@dataclass(frozen=True, slots=True)
class Requests(WarehousePart):
    """All requests in numbers, and the newest of the period."""

    name: ClassVar[str] = "requests"
    title: ClassVar[str] = "Unmasking"
    promise: ClassVar[str] = (
        "One person requests originals, another approves; each step is recorded before anything is"
        " shown."
    )
    about: ClassVar[str] = (
        "An approval lasts for a limited time. Reasons are in the audit and not here; a ticket is"
        " shown if it is a plain reference. Reveals has a dash if the audit could not be read."
    )

    total: int
    total_in_period: int
    requests: tuple[RequestRow, ...]

    @classmethod
    def read(cls, source: Source) -> Self:
        """Read the facts."""
        requests = (
            replace(
                each,
                ticket=shown_ticket(each.ticket),
                reveals=None if source.reveals is None else source.reveals.get(each.request_id, 0),
            )
            for each in source.rows(RequestRow, _REQUESTS)
        )
        count, in_period = source.row(_COUNTS)
        return cls(count, in_period, tuple(requests))

    def figure(self) -> str:
        """Return the numbers that matter most."""
        return f"{self.total_in_period:,} requests in the period"

    def judgements(self) -> Iterator[Judgement]:
        """Return the conditions of findings: the database refuses what must not be."""
        yield from ()

    def details(self) -> Iterator[Block]:
        """Return the table behind the figure."""
        yield f"{self.total:,} requests of all time, {self.total_in_period:,} in the period."
        yield from table(f"Requests of the period: the newest {len(self.requests)}", self.requests)


_COUNTS = """
SELECT count(*), count(*) FILTER (WHERE requested_at >= %(since)s AND requested_at < %(until)s)
FROM login_ingest.unmask_request
"""

# The number of tokens, and never the tokens.
_REQUESTS = """
SELECT request_id, requested_at, requester, ticket, cardinality(tokens) AS tokens, approver,
       expires_at,
       CASE WHEN withdrawn_at IS NOT NULL THEN 'withdrawn'
            WHEN cardinality(tokens) = 0 THEN 'erased' WHEN expires_at IS NULL THEN 'waiting'
            WHEN expires_at > now() THEN 'approved' ELSE 'expired' END AS state
FROM login_ingest.unmask_request
WHERE requested_at >= %(since)s AND requested_at < %(until)s
ORDER BY request_id DESC LIMIT 200
"""
