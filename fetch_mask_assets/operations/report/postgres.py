"""The report as it is read from the warehouse: one snapshot, read only.

A part that is refused is given as unreadable with the reason; the others are read all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import class_row

from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES
from fetch_mask_assets.operations.report.part import Part, Period, Unreadable, WarehousePart
from fetch_mask_assets.operations.report.parts import PARTS
from fetch_mask_assets.operations.report.parts.audit import AuditSummary, summarize_audit
from fetch_mask_assets.operations.report.parts.checks import Checks
from fetch_mask_assets.operations.report.report import Report, ReportProvenance, Server
from fetch_mask_assets.postgres import migrate
from fetch_mask_assets.postgres.connection import connect, one_row, translate_errors

# Counting a whole table takes as long as it takes; only the waiting is bounded.
_SESSION = (
    "-c TimeZone=UTC -c DateStyle=ISO -c lock_timeout=30s -c statement_timeout=900s"
    " -c idle_in_transaction_session_timeout=300s -c default_transaction_read_only=on"
)

_Fact = TypeVar("_Fact")
_Row = TypeVar("_Row")
_Parts = Mapping[str, Part | Unreadable]


@dataclass(frozen=True, slots=True)
class RetentionDays:
    """The days that quarantined messages and finished runs are kept."""

    quarantine: int
    runs: int


@dataclass(frozen=True, slots=True)
class ReportReader:
    """A reader of reports from a warehouse, by its libpq URL."""

    url: str = field(repr=False)
    retention: RetentionDays

    def read(
        self,
        period: Period,
        checks: Checks | Unreadable,
        *,
        at: datetime,
        expected_hash: bytes | None = None,
    ) -> Report:
        """Reads a report; a part that cannot be read is unreadable in it, and never raises.

        Args:
            period: the period of the report.
            checks: the part that Dagster's history gives.
            at: the present time.
            expected_hash: a hash that was noted earlier and must be in the audit.
        """
        audit = _try("read the audit", lambda: self._audit(period, expected_hash))
        server, read = self._warehouse(period, audit)
        found = {**read, Checks.name: checks, AuditSummary.name: audit}
        return Report(
            period=period,
            provenance=ReportProvenance.of(server, at, migrate.head()),
            parts={part.name: found[part.name] for part in PARTS},
        )

    def _audit(self, period: Period, expected: bytes | None) -> AuditSummary:
        return summarize_audit(Audit(self.url).rows(), period, expected)

    def _warehouse(self, period: Period, audit: AuditSummary | Unreadable) -> tuple[Server, _Parts]:
        parameters = {
            "since": period.since,
            "until": period.until,
            "keysets": list(KEYSET_NAMES),
            "quarantine_days": self.retention.quarantine,
            "run_days": self.retention.runs,
        }
        reveals = None if isinstance(audit, Unreadable) else audit.reveals
        try:
            with translate_errors("report"), self._snapshot() as connection:
                snapshot = _Snapshot(connection, parameters, reveals)
                return snapshot.server(), snapshot.parts()
        except DatabaseError as error:
            down = Unreadable(str(error))
            return Server(down, down, down), dict.fromkeys((each.name for each in PARTS), down)

    @contextmanager
    def _snapshot(self) -> Iterator[psycopg.Connection]:
        with connect(self.url, options=_SESSION) as connection:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            yield connection


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The `Source` of the parts."""

    connection: psycopg.Connection
    parameters: Mapping[str, object]
    reveals: Mapping[int, int] | None

    def rows(self, kind: type[_Row], statement: LiteralString) -> tuple[_Row, ...]:
        with self.connection.cursor(row_factory=class_row(kind)) as cursor:
            return tuple(cursor.execute(statement, self.parameters))

    def row(self, statement: LiteralString) -> tuple[Any, ...]:
        [found] = self.connection.execute(statement, self.parameters).fetchall()
        return found

    def server(self) -> Server:
        return Server(
            actor=self._try("read its session_user", lambda: self._text("SELECT session_user")),
            schema=self._try("read its schema version", lambda: migrate.current(self.connection)),
            postgres=self._try("read its version", lambda: self._text("SHOW server_version")),
        )

    def parts(self) -> _Parts:
        return {
            part.name: self._try(f"read the {part.name}", partial(part.read, self))
            for part in PARTS
            if issubclass(part, WarehousePart)
        }

    def _text(self, statement: LiteralString) -> str:
        return str(one_row(self.connection, statement)[0])

    def _try(self, verb: str, reader: Callable[[], _Fact]) -> _Fact | Unreadable:
        def within_savepoint() -> _Fact:
            with self.connection.transaction():
                return reader()

        return _try(verb, within_savepoint)


def _try(verb: str, reader: Callable[[], _Fact]) -> _Fact | Unreadable:
    try:
        with translate_errors(verb):
            return reader()
    except DatabaseError as error:
        return Unreadable(str(error))
