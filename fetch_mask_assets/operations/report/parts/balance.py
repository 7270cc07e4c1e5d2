"""The balance of messages, and the rows of user_logins beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar, Self

from fetch_mask_assets.operations.report.part import (
    Block,
    Chart,
    Judgement,
    Source,
    Table,
    WarehousePart,
    broken,
    by_heading,
    listing,
    notice,
    table,
    total,
)

MAX_BATCHES = 100
"""A period of more batches is shown by day only."""


@dataclass(frozen=True, slots=True)
class BatchTotals:
    """Several batches together, in messages; `unbalanced` of them do not hold."""

    batches: int = 0
    received: int = 0
    loaded: int = 0
    quarantined: int = 0
    already_known: int = 0
    ledger: int = 0
    unbalanced: int = 0


@dataclass(frozen=True, slots=True)
class DayTotals(BatchTotals):
    """The batches of a day of the period; without a day, the batches outside the period."""

    day: date | None = None


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch and its entries in the ledger, in messages."""

    batch_id: int
    run_id: str
    committed_at: datetime
    received: int
    loaded: int
    quarantined: int
    already_known: int
    ledger: int

    @property
    def holds(self) -> bool:
        """Whether its account adds up, and the ledger agrees."""
        new = self.loaded + self.quarantined
        return self.received == new + self.already_known and self.ledger == new


@dataclass(frozen=True, slots=True)
class LoginTable:
    """The rows of user_logins, and the rows that the records explain.

    `erased` rows were deleted with their user. `without_token` counts, by masked field, rows whose
    token was erased; `non_token_rows` have another value than a token in a masked column.
    """

    rows: int
    loaded: int
    replayed: int
    erased: int
    without_token: Mapping[str, int]
    non_token_rows: int

    @property
    def recorded_rows(self) -> int:
        """The rows that the records explain."""
        return self.loaded + self.replayed - self.erased

    @property
    def missing_rows(self) -> int:
        """Rows that are recorded and not in the table."""
        return max(0, self.recorded_rows - self.rows)

    @property
    def unrecorded_rows(self) -> int:
        """Rows that are in the table and not recorded."""
        return max(0, self.rows - self.recorded_rows)


@dataclass(frozen=True, slots=True)
class Balance(WarehousePart):
    """The balance of all batches, of the period, by day, and of single batches.

    `batches` has each batch of the period if they are few; `unbalanced_batches` has those of all
    time, the newest first, up to a limit. `ledger_rows` counts rows without a batch record too.
    """

    name: ClassVar[str] = "balance"
    title: ClassVar[str] = "Balance"
    promise: ClassVar[str] = (
        "Every received message is loaded, quarantined or already known, and no loaded row is"
        " missing."
    )
    about: ClassVar[str] = (
        "received = loaded + quarantined + already known (delivered before). The ledger has the id"
        " of each message that was loaded or quarantined, and its count must agree."
    )

    totals: BatchTotals
    period_totals: BatchTotals
    days: tuple[DayTotals, ...]
    batches: tuple[BatchRow, ...]
    unbalanced_batches: tuple[BatchRow, ...]
    ledger_rows: int
    user_logins: LoginTable

    @classmethod
    def read(cls, source: Source) -> Self:
        """Read the facts."""
        totals = source.rows(DayTotals, _DAYS)
        days = tuple(each for each in totals if each.day)
        in_period = total(BatchTotals, days)
        [ledger_rows] = source.row("SELECT count(*) FROM login_ingest.ledger")
        [user_logins] = source.rows(LoginTable, _TABLE)
        return cls(
            totals=total(BatchTotals, totals),
            period_totals=in_period,
            days=days,
            batches=source.rows(BatchRow, _BATCHES) if in_period.batches <= MAX_BATCHES else (),
            unbalanced_batches=source.rows(BatchRow, _UNBALANCED),
            ledger_rows=ledger_rows,
            user_logins=user_logins,
        )

    def figure(self) -> str:
        """Return the numbers that matter most."""
        return (
            f"{self.period_totals.received:,} received, {self.user_logins.missing_rows:,} rows"
            " missing"
        )

    def judgements(self) -> Iterator[Judgement]:
        """Return the conditions of findings."""
        logins, recorded = self.user_logins, self.totals.loaded + self.totals.quarantined
        yield broken(
            self.totals.unbalanced,
            f"{self.totals.unbalanced} batches do not balance.",
        )
        yield broken(
            self.ledger_rows != recorded,
            f"the ledger holds {self.ledger_rows} message ids, the batches record {recorded}.",
        )
        yield broken(
            logins.missing_rows,
            f"user_logins lacks {logins.missing_rows} recorded rows: they were deleted outside this"
            " product.",
        )
        yield broken(
            logins.non_token_rows,
            f"{logins.non_token_rows} rows of user_logins have another value than a token in a"
            " masked column: mask or remove them.",
        )
        yield notice(
            logins.unrecorded_rows,
            f"{logins.unrecorded_rows} rows of user_logins were not written by this product.",
        )

    def details(self) -> Iterator[Block]:
        """Return the tables and the chart behind the figure."""
        yield Table("Messages", [
            {"": "All batches", **by_heading(self.totals)},
            {"": "In the period", **by_heading(self.period_totals)},
        ])  # fmt: skip
        yield listing("Rows", self._rows())
        days = [(each.day, (each.loaded, each.already_known, each.quarantined))
                for each in self.days if each.day]  # fmt: skip
        if days:
            yield Chart("Messages by day", ("loaded", "already known", "quarantined"), days)
            yield Table(
                "Messages by day",
                [{"Day": each.day, **by_heading(each)} for each in self.days],
            )
        yield from table("Batches of the period", self.batches)
        yield from table(
            f"Batches that do not balance, of all time: the newest {len(self.unbalanced_batches)}",
            self.unbalanced_batches,
        )

    def _rows(self) -> dict[str, object]:
        logins = self.user_logins
        return {
            "Message ids in the ledger": self.ledger_rows,
            "Loaded by batches": logins.loaded,
            "Loaded by replaying quarantined messages": logins.replayed,
            "Deleted with erased users": logins.erased,
            "Expected in user_logins": logins.recorded_rows,
            "Present in user_logins": logins.rows,
            "Missing": logins.missing_rows,
            "Not written by this product": logins.unrecorded_rows,
            **{f"With an erased {name}": rows for name, rows in logins.without_token.items()},
            "With another value than a token": logins.non_token_rows,
        }


_DAYS = """
SELECT CASE WHEN committed_at >= %(since)s AND committed_at < %(until)s
            THEN (committed_at AT TIME ZONE 'UTC')::date END AS day,
       count(*) AS batches, sum(received)::bigint AS received, sum(loaded)::bigint AS loaded,
       sum(quarantined)::bigint AS quarantined, sum(already_known)::bigint AS already_known,
       sum(ledger)::bigint AS ledger, count(*) FILTER (WHERE NOT holds) AS unbalanced
FROM login_ingest.batch_balance GROUP BY day ORDER BY day
"""

_BATCHES = """
SELECT batch_id, run_id, committed_at, received, loaded, quarantined, already_known, ledger
FROM login_ingest.batch_balance WHERE committed_at >= %(since)s AND committed_at < %(until)s
ORDER BY committed_at, batch_id
"""

_UNBALANCED = """
SELECT batch_id, run_id, committed_at, received, loaded, quarantined, already_known, ledger
FROM login_ingest.batch_balance WHERE NOT holds ORDER BY batch_id DESC LIMIT 200
"""

_TABLE = """
SELECT login_rows AS rows,
       (SELECT coalesce(sum(loaded), 0)::bigint FROM login_ingest.batch) AS loaded,
       (SELECT coalesce(sum(replayed), 0)::bigint FROM login_ingest.replay) AS replayed,
       (SELECT coalesce(sum(logins), 0)::bigint
        FROM login_ingest.erasure WHERE kind = 'user') AS erased,
       (SELECT jsonb_object_agg(substr(key, length('without_') + 1), value)
        FROM jsonb_each(to_jsonb(counted)) WHERE starts_with(key, 'without_')) AS without_token,
       login_ingest.rows_without_tokens() AS non_token_rows
FROM login_ingest.login_counts() AS counted
"""
