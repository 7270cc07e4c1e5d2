"""The report as it is read from the warehouse: one snapshot, read only.

A part that is refused is given as unreadable with the reason; the others are read all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import dict_row

from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES
from fetch_mask_assets.operations.report.audit import summarize_audit
from fetch_mask_assets.operations.report.part import (
    Facts,
    Part,
    Period,
    Unreadable,
    shown_code,
    shown_ticket,
)
from fetch_mask_assets.operations.report.parts import AUDIT, CHECKS, PARTS
from fetch_mask_assets.operations.report.report import Report, ReportProvenance
from fetch_mask_assets.postgres import revision
from fetch_mask_assets.postgres.errors import translate_errors
from fetch_mask_assets.postgres.sessions import REPORT, one_row, open_session

MAX_BATCHES = 100
"""A period of more batches is shown by day only."""

MAX_ROWS = 200
"""The newest certificates, requests and unbalanced batches that are shown."""

# Columns that may hold free text.
_SHOWN: Mapping[str, Callable[[str], str]] = {
    "ticket": shown_ticket,
    "reason": shown_code,
    "field": lambda name: shown_code(name) if name else name,
}

_Fact = TypeVar("_Fact")


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
        checks: Facts | Unreadable,
        *,
        at: datetime,
        expected_hash: bytes | None = None,
    ) -> Report:
        """Reads a report; a part that cannot be read is unreadable in it, and never raises.

        Args:
            period: the period of the report.
            checks: the facts from Dagster's history.
            at: the present time.
            expected_hash: a hash that was noted earlier and must be in the audit.
        """
        audit = _try(
            "read the audit",
            lambda: summarize_audit(Audit(self.url).rows(), period, expected_hash),
        )
        given = {CHECKS.name: checks, AUDIT.name: audit}
        try:
            with open_session(self.url, REPORT, "report") as connection:
                connection.isolation_level = IsolationLevel.REPEATABLE_READ
                return _report(_Snapshot(connection, self._parameters(period)), period, at, given)
        except DatabaseError as error:
            down = Unreadable(str(error))
            facts = dict.fromkeys((part.name for part in PARTS), down) | given
            return Report(period, ReportProvenance(at, down, down, revision.HEAD, down), facts)

    def _parameters(self, period: Period) -> Mapping[str, object]:
        return {
            "since": period.since,
            "until": period.until,
            "keysets": list(KEYSET_NAMES),
            "quarantine_days": self.retention.quarantine,
            "run_days": self.retention.runs,
            "max_batches": MAX_BATCHES,
            "max_rows": MAX_ROWS,
        }


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One snapshot of the warehouse, in which a refused statement does not end the others."""

    connection: psycopg.Connection
    parameters: Mapping[str, object]

    def read(self, verb: str, reader: Callable[[], _Fact]) -> _Fact | Unreadable:
        def within_savepoint() -> _Fact:
            with self.connection.transaction():
                return reader()

        return _try(verb, within_savepoint)

    def text(self, statement: LiteralString) -> str:
        return str(one_row(self.connection, statement)[0])

    def facts(self, part: Part) -> Facts:
        records = {name: self._rows(statement)[0] for name, statement in part.records.items()}
        return records | {name: self._rows(statement) for name, statement in part.tables.items()}

    def _rows(self, statement: LiteralString) -> list[dict[str, Any]]:
        cursor = self.connection.cursor(row_factory=dict_row)
        return [_shown(row) for row in cursor.execute(statement, self.parameters)]


def _report(
    snapshot: _Snapshot, period: Period, at: datetime, given: Mapping[str, Facts | Unreadable]
) -> Report:
    provenance = ReportProvenance(
        at=at,
        actor=snapshot.read("read its user", lambda: snapshot.text("SELECT session_user")),
        schema=snapshot.read("read its schema", lambda: revision.current(snapshot.connection)),
        schema_needed=revision.HEAD,
        postgres=snapshot.read("read its version", lambda: snapshot.text("SHOW server_version")),
    )
    facts = {
        part.name: given[part.name]
        if part.name in given
        else snapshot.read(f"read the {part.name}", partial(snapshot.facts, part))
        for part in PARTS
    }
    return Report(period, provenance, facts)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _SHOWN[name](each) if name in _SHOWN else each for name, each in row.items()}


def _try(verb: str, reader: Callable[[], _Fact]) -> _Fact | Unreadable:
    try:
        with translate_errors(verb):
            return reader()
    except DatabaseError as error:
        return Unreadable(str(error))
