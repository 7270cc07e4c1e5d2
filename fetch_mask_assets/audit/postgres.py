"""The audit: appended to by the database's own function, read by the auditor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from fetch_mask_assets.audit.chain import AuditRow
from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.postgres.connection import connect, translate_errors

# Whatever the user's defaults are: the answer to a commit means that the record is on disk, and
# times come in the one style that psycopg reads.
RECORDING_SESSION = (
    "-c synchronous_commit=on -c TimeZone=UTC -c DateStyle=ISO -c lock_timeout=30s"
    " -c statement_timeout=300s -c idle_in_transaction_session_timeout=300s"
)

_ROWS_AT_A_TIME = 1_000


def record(connection: psycopg.Connection, action: str, detail: Mapping[str, object]) -> int:
    """Appends a row in the session's user's name; it is there once the caller commits.

    Args:
        connection: one of `RECORDING_SESSION`, so that the commit is durable.
        action: what is done, on one line.
        detail: never a raw value.

    Raises:
        psycopg.Error: the audit cannot be written; wrap the call in `translate_errors`.
    """
    values = [action, json.dumps(detail, ensure_ascii=False)]
    row = connection.execute("SELECT login_ingest.record_audit(%s, %s)", values).fetchone()
    if row is None:
        raise DatabaseError("the audit did not say that it recorded; nothing was done.")
    return int(row[0])


@dataclass(frozen=True, slots=True)
class Audit:
    """The audit of a warehouse, by its libpq URL."""

    url: str = field(repr=False)

    def rows(self) -> Iterator[AuditRow]:
        """Every row, from the first; held in memory a thousand at a time.

        Raises:
            DatabaseError: the audit cannot be read.
        """
        with self._session() as connection, connection.cursor(name="audit") as cursor:
            cursor.itersize = _ROWS_AT_A_TIME
            cursor.execute(_READ)
            for line in cursor:
                yield _row(line)

    def newest(self, count: int) -> list[AuditRow]:
        """The newest rows, oldest of them first.

        Raises:
            DatabaseError: the audit cannot be read.
        """
        with self._session() as connection:
            lines = connection.execute(_READ_NEWEST, [count]).fetchall()
        return [_row(line) for line in reversed(lines)]

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        with (
            translate_errors("read the audit"),
            connect(self.url, options=RECORDING_SESSION) as connection,
        ):
            yield connection


def _row(line: tuple[object, ...]) -> AuditRow:
    return AuditRow(*line)  # type: ignore[arg-type]  # the columns of _READ are those fields


# Of an edited row even the time may be one that Python has not.
_READ = """
SELECT audit_id,
       CASE WHEN at >= '0001-01-02 00:00:00Z' AND at < '9999-12-31 00:00:00Z' THEN at END,
       actor, action, detail, previous_hash, hash
FROM login_ingest.audit ORDER BY audit_id
"""

_READ_NEWEST = """
SELECT audit_id,
       CASE WHEN at >= '0001-01-02 00:00:00Z' AND at < '9999-12-31 00:00:00Z' THEN at END,
       actor, action, detail, previous_hash, hash
FROM login_ingest.audit ORDER BY audit_id DESC LIMIT %s
"""
