"""The certificates of erasure."""

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
    broken,
    shown_ticket,
    table,
)


@dataclass(frozen=True, slots=True)
class ErasureRow:
    """A certificate of erasure, in numbers; `remaining` is None until the search afterwards."""

    erasure_id: str
    at: datetime
    actor: str
    kind: str
    subjects: int
    ticket: str
    logins: int
    links: int
    requests: int
    quarantined: int
    unopened: int
    remaining: int | None
    finished_at: datetime | None
    verified: bool


@dataclass(frozen=True, slots=True)
class ErasureCertificates(WarehousePart):
    """All erasures in numbers, and the newest certificates of the period or not verified."""

    name: ClassVar[str] = "erasures"
    title: ClassVar[str] = "Erasures"
    promise: ClassVar[str] = "After each erasure, a search found nothing left."
    about: ClassVar[str] = (
        "Erasures on request: numbers, and nothing that identifies the erased values. Shown are"
        " those of the period, and those that are not verified."
    )

    total: int
    unverified: int
    certificates: tuple[ErasureRow, ...]

    @classmethod
    def read(cls, source: Source) -> Self:
        """Read the facts."""
        found = source.rows(ErasureRow, _CERTIFICATES)
        shown = (replace(each, ticket=shown_ticket(each.ticket)) for each in found)
        count, unverified = source.row(_COUNTS)
        return cls(count, unverified, tuple(shown))

    def figure(self) -> str:
        """Return the numbers that matter most."""
        return f"{self.total:,} erasures, {self.unverified:,} not verified"

    def judgements(self) -> Iterator[Judgement]:
        """Return the conditions of findings."""
        yield broken(
            self.unverified,
            f"{self.unverified} erasures are unfinished, or left something that could not be"
            " erased: repeat them.",
        )

    def details(self) -> Iterator[Block]:
        """Return the table behind the figure."""
        yield from table("Certificates", self.certificates, "finished_at", "requests")


_COUNTS = "SELECT count(*), count(*) FILTER (WHERE NOT verified) FROM login_ingest.erasure"

_CERTIFICATES = """
SELECT erasure_id, at, person AS actor, kind, subjects, ticket, logins, links, requests,
       quarantined, unopened, remaining, finished_at, verified
FROM login_ingest.erasure WHERE at >= %(since)s AND at < %(until)s OR NOT verified
ORDER BY at DESC LIMIT 200
"""
