"""The warehouse: its schema version, its readiness for rows, and counts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import errors, sql

from fetch_mask_assets.pipeline.batch.balance import Balance, BatchCounts
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS
from fetch_mask_assets.pipeline.batch.table_rules import TableFacts
from fetch_mask_assets.pipeline.warehouse.ledger import create_partitions
from fetch_mask_assets.postgres import revision
from fetch_mask_assets.postgres.errors import TransientDatabaseError
from fetch_mask_assets.postgres.sessions import LONG_READ, PROBE, READ, one_row, open_session

# The table refused this row, or was locked for a moment: a batch may succeed.
_INCONCLUSIVE_ERRORS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    errors.RaiseException,
    errors.WithCheckOptionViolation,
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)


@dataclass(frozen=True, slots=True)
class LoginDatabase:
    """A warehouse, by its libpq URL; each method opens a session of its own."""

    url: str = field(repr=False)

    def schema_revisions(self) -> tuple[str | None, str]:
        """The revision of the database's schema, and the one that this release needs.

        Raises:
            DatabaseError: the database cannot be reached.
        """
        with open_session(self.url, READ, "read its schema version") as connection:
            return revision.current(connection), revision.HEAD

    def require_writable(self, login: Sequence[object]) -> None:
        """Insert a login, given as the values of its columns in order, and roll back.

        A refusal of this one login, or a lock on the table, is no error: a batch may succeed.

        Raises:
            DatabaseError: the database accepts no rows: its disk is full, or it is read-only.
        """
        with (
            open_session(self.url, PROBE, "try a row") as connection,
            suppress(*_INCONCLUSIVE_ERRORS),
            connection.transaction(force_rollback=True),
        ):
            connection.execute(_INSERT_LOGIN, list(login))

    def prepare_ledger(self) -> None:
        """Create the ledger's partitions that are due.

        A locked ledger is not an error: without a partition of its day, a message goes to the
        default one.

        Raises:
            DatabaseError: the partitions cannot be created.
        """
        with suppress(TransientDatabaseError):
            create_partitions(self.url)

    def batch_counts(self, run_id: str) -> BatchCounts | None:
        """The batch record of a run and the rows counted for it, or None if it committed none.

        Raises:
            DatabaseError: the counts cannot be read.
        """
        with open_session(self.url, READ, "count a batch") as connection:
            return _batch_counts(connection, run_id)

    def table_facts(self, run_id: str, received: int) -> TableFacts:
        """The facts for the table's rules, after a run that received so many messages.

        Raises:
            DatabaseError: the counts cannot be read.
        """
        with open_session(self.url, READ, "count a batch") as connection:
            counts = _batch_counts(connection, run_id)
            (rows,) = one_row(connection, "SELECT login_ingest.unprefixed_rows()")
        return TableFacts(received=received, counts=counts, unprefixed_rows=int(rows))

    def non_token_rows(self) -> int:
        """The number of rows in `user_logins` with anything but tokens in the masked columns.

        Reads the whole table.

        Raises:
            DatabaseError: the rows cannot be counted.
        """
        with open_session(self.url, LONG_READ, "count rows without tokens") as connection:
            (rows,) = one_row(connection, "SELECT login_ingest.non_token_rows()")
        return int(rows)

    def query(self, statement: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """The rows of one statement that only reads.

        Raises:
            DatabaseError: the statement was refused.
        """
        with open_session(self.url, READ, "read") as connection:
            return connection.execute(statement, values or None).fetchall()


def _batch_counts(connection: psycopg.Connection, run_id: str) -> BatchCounts | None:
    row = connection.execute(_COUNT_BATCH, [run_id]).fetchone()
    return None if row is None else BatchCounts(Balance(*row[:4]), row[4], row[5])


_INSERT_LOGIN = sql.SQL("INSERT INTO user_logins ({}) VALUES ({})").format(
    sql.SQL(", ").join(map(sql.Identifier, LOGIN_COLUMNS)),
    sql.SQL(", ").join(sql.Placeholder() * len(LOGIN_COLUMNS)),
)

_COUNT_BATCH = """
SELECT received, loaded, quarantined, already_known,
       (SELECT count(*) FROM login_ingest.ledger WHERE batch_id = batch.batch_id)
           + (SELECT coalesce(sum(messages), 0)::bigint FROM login_ingest.dropped_ledger
              WHERE batch_id = batch.batch_id),
       (SELECT count(*) FROM login_ingest.quarantine WHERE batch_id = batch.batch_id)
FROM login_ingest.batch WHERE run_id = %s
"""
