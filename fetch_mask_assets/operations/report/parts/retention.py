"""The ages of what is kept, and their limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar, Self

from fetch_mask_assets.operations.report.part import (
    Block,
    Judgement,
    Source,
    WarehousePart,
    broken,
    listing,
)


@dataclass(frozen=True, slots=True)
class Retention(WarehousePart):
    """The retention settings, and the oldest that is there."""

    name: ClassVar[str] = "retention"
    title: ClassVar[str] = "Retention"
    promise: ClassVar[str] = "No quarantined message is kept longer than its retention."
    about: ClassVar[str] = (
        "Quarantined messages expire by age. Rows of user_logins do not: this product never"
        " deletes them by age."
    )

    quarantine_days: int
    run_days: int
    oldest_quarantined_at: datetime | None
    overdue: int
    last_expired_at: datetime | None
    oldest_login_day: date | None

    @classmethod
    def read(cls, source: Source) -> Self:
        """Read the facts."""
        [facts] = source.rows(cls, _RETENTION)
        return facts

    def figure(self) -> str:
        """Return the numbers that matter most."""
        return f"{self.overdue:,} messages overdue"

    def judgements(self) -> Iterator[Judgement]:
        """Return the conditions of findings."""
        yield broken(
            self.overdue,
            f"{self.overdue} quarantined messages are more than a day older than the"
            f" {self.quarantine_days} days of their retention: check that the schedule"
            " expire_quarantine_nightly is on.",
        )

    def details(self) -> Iterator[Block]:
        """Return the table behind the figure."""
        values = {
            "Days that a quarantined message is kept": self.quarantine_days,
            "Oldest quarantined message": self.oldest_quarantined_at,
            "Overdue quarantined messages": self.overdue,
            "Last expiry of quarantined messages": self.last_expired_at,
            "Days that Dagster keeps a finished run (check results stay)": self.run_days,
            "Oldest day in user_logins": self.oldest_login_day,
        }
        yield listing("Retention", values)


# A day of slack: the schedule runs once a night.
_RETENTION = """
SELECT %(quarantine_days)s::int AS quarantine_days, %(run_days)s::int AS run_days,
       (SELECT min(quarantined_at) FROM login_ingest.quarantine) AS oldest_quarantined_at,
       (SELECT count(*) FROM login_ingest.quarantine
        WHERE quarantined_at < now() - make_interval(days => %(quarantine_days)s::int + 1))
           AS overdue,
       (SELECT max(at) FROM login_ingest.discard WHERE action = 'expire') AS last_expired_at,
       (SELECT oldest_day FROM login_ingest.login_counts()) AS oldest_login_day
"""
