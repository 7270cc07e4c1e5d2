"""The audit table: append a row, and read rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import psycopg

from fetch_mask_assets.audit.chain import AuditRow
from fetch_mask_assets.postgres.sessions import READ, one_row, open_session

_ROWS_AT_A_TIME = 1_000


def record(connection: psycopg.Connection, action: str, detail: Mapping[str, object]) -> int:
    """Append a row in the name of the session's user; it is durable once the caller commits.

    Args:
        connection: of the profile `RECORD` or `LONG_RECORD`, so that the commit is durable.
        action: the recorded action, on one line.
        detail: its parameters, without any raw value.

    Returns:
        The id of the row.

    Raises:
        psycopg.Error: the audit cannot be written; wrap the call in `translate_errors`.
    """
    values = [action, json.dumps(detail, ensure_ascii=False)]
    (audit_id,) = one_row(connection, "SELECT login_ingest.record_audit(%s, %s)", *values)
    return int(audit_id)


@dataclass(frozen=True, slots=True)
class Audit:
    """The audit of a warehouse, by its libpq URL."""

    url: str = field(repr=False)

    def rows(self) -> Iterator[AuditRow]:
        """Every row in the order of the ids, fetched a thousand at a time.

        Raises:
            DatabaseError: the audit cannot be read.
        """
        with (
            open_session(self.url, READ, "read the audit") as connection,
            connection.cursor(name="audit") as cursor,
        ):
            cursor.itersize = _ROWS_AT_A_TIME
            cursor.execute(_READ)
            for row in cursor:
                yield _row(row)

    def newest(self, count: int) -> list[AuditRow]:
        """The newest rows, in the order of their ids.

        Raises:
            DatabaseError: the audit cannot be read.
        """
        with open_session(self.url, READ, "read the audit") as connection:
            rows = connection.execute(_READ_NEWEST, [count]).fetchall()
        return [_row(row) for row in reversed(rows)]


def _row(row: tuple[object, ...]) -> AuditRow:
    return AuditRow(*row)  # type: ignore[arg-type]  # the columns of _READ are those fields


# An edited row may have a time that Python cannot represent.
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
