"""The warehouse: `commit_batch`, and what the database itself says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, LiteralString

import polars as pl
import psycopg
from psycopg import errors, sql
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.links import TokenLink
from fetch_mask_assets.keys.postgres import lock_keys, write_links
from fetch_mask_assets.keys.registry import CheckValues, RetiredCheckValue, key_conflicts
from fetch_mask_assets.pipeline.batch.balance import Balance, BatchCounts
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS
from fetch_mask_assets.pipeline.contract.rejection import Reason
from fetch_mask_assets.postgres import migrate
from fetch_mask_assets.postgres.connection import (
    RefusedRowError,
    TransientDatabaseError,
    connect,
    one_row,
    translate_errors,
)
from fetch_mask_assets.postgres.locks import REGISTRY, acquire_lock

COMMIT_ATTEMPTS = 4
MAX_REFUSED_ROWS = 100
"""More refusals than this in one batch are a fault of the table, not of the rows."""

# A session that hangs must not hold the ledger's locks until somebody notices.
_SESSION = (
    "-c lock_timeout=30s -c statement_timeout=300s -c idle_in_transaction_session_timeout=300s"
)


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
class BatchToCommit:
    """A masked batch on its way into the table.

    `seal` gives the sealed body of a message that the database refuses, by message id; `links`
    are those of the batch's values to their tokens under other keys.
    """

    run_id: str
    masked: pl.DataFrame
    seal: Callable[[str], bytes] = field(repr=False)
    links: Sequence[TokenLink] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class LoginDatabase:
    """A warehouse, by its libpq URL; each verb is a connection of its own."""

    url: str = field(repr=False)

    def schema_revisions(self) -> tuple[str | None, str]:
        """The revision that the database has, and the one that this release needs.

        Raises:
            DatabaseError: the database cannot be reached.
        """
        with self._session("read its schema version") as connection:
            return migrate.current(connection), migrate.head()

    def key_conflicts(self, present: CheckValues) -> tuple[str, ...]:
        """Why these keysets do not fit the key registry; empty if they do.

        Raises:
            DatabaseError: the registry cannot be read.
        """
        with self._session("read the key registry") as connection:
            return key_conflicts(_registered(connection), present)

    def register_keys(self, present: CheckValues) -> tuple[str, ...]:
        """Registers keys before their first use, unless they conflict.

        Returns:
            The conflicts; where there are any, nothing was registered.

        Raises:
            DatabaseError: the registry cannot be read or written.
        """
        with self._session("register keys") as connection, connection.transaction():
            # Of two workers with different new keysets, only the first may find the registry empty.
            acquire_lock(connection, REGISTRY)
            conflicts = key_conflicts(_registered(connection), present)
            if not conflicts:
                _register(connection, present)
            return conflicts

    def commit_batch(self, batch: BatchToCommit) -> Balance:
        """Writes a batch in one transaction: ledger, rows, quarantine, batch record.

        Repeating it changes nothing: a message id is committed once, a run's batch is recorded
        once. A row that the database refuses is quarantined.

        Raises:
            DatabaseError: nothing was written, or it is unclear; the messages must go back.
        """
        attempts = Retrying(
            retry=retry_if_exception_type(TransientDatabaseError),
            stop=stop_after_attempt(COMMIT_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        return attempts(self._commit_once, batch)

    def require_writable(self, login: Sequence[object]) -> None:
        """Tries to write a login, by its columns in their order, and takes it back.

        That the table refuses this one login, or that somebody holds the table for a moment, says
        nothing about a batch.

        Raises:
            DatabaseError: the database takes no rows: its disk is full, it is read-only.
        """
        with (
            self._session("try a row") as connection,
            suppress(*_INCONCLUSIVE_ERRORS),
            connection.transaction(force_rollback=True),
        ):
            connection.execute("SET LOCAL lock_timeout = '1s'")
            connection.execute(_INSERT_LOGIN, list(login))

    def batch_counts(self, run_id: str) -> BatchCounts | None:
        """What the database counts of a run's batch, or None if the run committed none.

        Raises:
            DatabaseError: the counts cannot be read.
        """
        with self._session("count a batch") as connection:
            row = connection.execute(_COUNT_BATCH, [run_id]).fetchone()
        return None if row is None else BatchCounts(Balance(*row[:4]), row[4], row[5])

    def rows_without_tokens(self) -> int:
        """How many rows of `user_logins` hold anything but tokens in the masked columns.

        Raises:
            DatabaseError: the rows cannot be counted.
        """
        with self._session("count rows without tokens") as connection:
            return _number(connection, _COUNT_UNTOKENED)

    def query(self, statement: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """The rows of one reading statement.

        Raises:
            DatabaseError: the statement was refused.
        """
        with self._session("read") as connection:
            return connection.execute(statement, values or None).fetchall()

    @contextmanager
    def _session(self, verb: str) -> Iterator[psycopg.Connection]:
        with translate_errors(verb), connect(self.url, options=_SESSION) as connection:
            yield connection

    def _commit_once(self, batch: BatchToCommit) -> Balance:
        with self._session("commit a batch") as connection, connection.transaction():
            _commit(connection, batch)
            return Balance(*one_row(connection, _READ_RECORD, batch.run_id))


def _commit(connection: psycopg.Connection, batch: BatchToCommit) -> None:
    (batch_id,) = one_row(connection, _NEXT_BATCH_ID)
    new_ids = _insert_ledger(connection, batch_id, batch.masked)
    fresh = batch.masked.unique("message_id", keep="first", maintain_order=True).filter(
        pl.col("message_id").is_in(new_ids)
    )
    logins = fresh.filter(pl.col("reason").is_null())
    refused = _copy_logins(connection, logins)
    rejected = pl.concat(
        [fresh.filter(pl.col("reason").is_not_null()), _sealed(logins, refused, batch.seal)]
    )
    lock_keys(connection, logins, rejected["sealed_body"])
    quarantined = _insert_quarantine(connection, batch_id, rejected)
    # Late, because whoever else links waits from here until the end of the transaction.
    write_links(connection, _links_of(batch.links, logins))
    counts = {
        "batch_id": batch_id,
        "run_id": batch.run_id,
        "received": batch.masked.height,
        "loaded": logins.height - len(refused),
        "quarantined": quarantined,
        "already_known": batch.masked.height - len(new_ids),
        "oldest_sent_at": batch.masked["sent_at"].min(),
        "newest_sent_at": batch.masked["sent_at"].max(),
    }
    connection.execute(_INSERT_RECORD, counts)


def _links_of(links: Sequence[TokenLink], logins: pl.DataFrame) -> list[TokenLink]:
    # A message that comes again must not bring back the links of a value that was erased since.
    loaded = {*logins["masked_ip"], *logins["masked_device_id"]}
    return [link for link in links if link.new_token in loaded]


def _insert_ledger(
    connection: psycopg.Connection, batch_id: int, masked: pl.DataFrame
) -> list[str]:
    """Enters the message ids; returns those that were new."""
    values = {
        "batch_id": batch_id,
        "message_ids": masked["message_id"].to_list(),
        "sent_at": masked["sent_at"].to_list(),
        "versions": masked["app_version_text"].to_list(),
    }
    return [message_id for (message_id,) in connection.execute(_INSERT_LEDGER, values)]


def _copy_logins(connection: psycopg.Connection, logins: pl.DataFrame) -> list[str]:
    """Copies rows into `user_logins`; returns the message ids of those that it refused."""
    refused: list[str] = []
    pending = [logins] if logins.height else []
    while pending:
        part = pending.pop()
        if _copy_part(connection, part):
            continue
        if part.height > 1:
            pending += [part.head(part.height // 2), part.tail(-(part.height // 2))]
            continue
        refused += part["message_id"].to_list()
        if len(refused) > MAX_REFUSED_ROWS:
            raise DatabaseError(
                f"user_logins refuses more than {MAX_REFUSED_ROWS} rows of one batch: compare"
                " its columns and constraints with the documentation. Nothing was written."
            )
    return refused


def _copy_part(connection: psycopg.Connection, part: pl.DataFrame) -> bool:
    """Whether the table took these rows; if not, it is as it was before."""
    try:
        with translate_errors("copy rows"), connection.transaction():
            cursor = connection.cursor()
            with cursor.copy(_COPY) as copy:
                copy.write(part.select(LOGIN_COLUMNS).write_csv(include_header=False))
            _refuse_lost_rows(cursor.rowcount, part.height)
            # A deferred constraint would speak at COMMIT, and for the whole batch.
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except RefusedRowError:
        return False
    return True


def _refuse_lost_rows(copied: int, sent: int) -> None:
    if copied != sent:
        raise DatabaseError(
            f"user_logins took {copied} of {sent} rows: something in the database, perhaps a"
            " trigger, drops rows silently. Nothing was written."
        )


def _sealed(
    logins: pl.DataFrame, refused: Sequence[str], seal: Callable[[str], bytes]
) -> pl.DataFrame:
    """The lines of refused rows, as rejections."""
    lines = logins.filter(pl.col("message_id").is_in(refused))
    bodies = [seal(message_id) for message_id in lines["message_id"]]
    return lines.with_columns(
        reason=pl.lit(Reason.REFUSED_BY_DATABASE.value),
        sealed_body=pl.Series(bodies, dtype=pl.Binary),
    )


def _insert_quarantine(
    connection: psycopg.Connection, batch_id: int, rejected: pl.DataFrame
) -> int:
    columns = ("message_id", "reason", "field", "sent_at", "receive_count", "sealed_body")
    with connection.cursor() as cursor:
        cursor.executemany(
            _INSERT_QUARANTINE, [(batch_id, *line) for line in rejected.select(columns).iter_rows()]
        )
        return max(cursor.rowcount, 0)


def _registered(connection: psycopg.Connection) -> dict[str, dict[int, bytes]]:
    rows = connection.execute(_READ_KEYS).fetchall()
    return {
        name: {
            key_id: RetiredCheckValue(check) if is_retired else bytes(check)
            for _, key_id, check, is_retired in lines
        }
        for name, lines in groupby(rows, key=itemgetter(0))
    }


def _register(connection: psycopg.Connection, present: Mapping[str, Mapping[int, bytes]]) -> None:
    keys = [
        (name, key_id, check)
        for name, checks in present.items()
        for key_id, check in checks.items()
    ]
    columns = [list(column) for column in zip(*keys, strict=True)]
    if columns:
        connection.execute(_REGISTER, columns)


def _number(connection: psycopg.Connection, statement: LiteralString) -> int:
    (number,) = one_row(connection, statement)
    return int(number)


_NEXT_BATCH_ID = "SELECT nextval(pg_get_serial_sequence('login_ingest.batch', 'batch_id'))"

# Sorted, so that two batches with messages in common wait for each other in one order only.
_INSERT_LEDGER = """
INSERT INTO login_ingest.ledger (message_id, batch_id, sent_at, app_version)
SELECT message_id, %(batch_id)s, sent_at, app_version
FROM unnest(%(message_ids)s::text[], %(sent_at)s::timestamptz[], %(versions)s::text[])
     AS received (message_id, sent_at, app_version)
ORDER BY message_id
ON CONFLICT DO NOTHING
RETURNING message_id
"""

_COPY = sql.SQL("COPY user_logins ({}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')").format(
    sql.SQL(", ").join(map(sql.Identifier, LOGIN_COLUMNS))
)

_INSERT_LOGIN = sql.SQL("INSERT INTO user_logins ({}) VALUES ({})").format(
    sql.SQL(", ").join(map(sql.Identifier, LOGIN_COLUMNS)),
    sql.SQL(", ").join(sql.Placeholder() * len(LOGIN_COLUMNS)),
)

_INSERT_QUARANTINE = """
INSERT INTO login_ingest.quarantine
       (batch_id, message_id, reason, field, sent_at, receive_count, sealed_body)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""

# An attempt whose answer was lost may have recorded the batch already: that record counts.
_INSERT_RECORD = """
INSERT INTO login_ingest.batch (batch_id, run_id, received, loaded, quarantined, already_known,
                                oldest_sent_at, newest_sent_at)
VALUES (%(batch_id)s, %(run_id)s, %(received)s, %(loaded)s, %(quarantined)s, %(already_known)s,
        %(oldest_sent_at)s, %(newest_sent_at)s)
ON CONFLICT (run_id) DO NOTHING
"""

_READ_RECORD = """
SELECT received, loaded, quarantined, already_known FROM login_ingest.batch WHERE run_id = %s
"""

_COUNT_BATCH = """
SELECT received, loaded, quarantined, already_known,
       (SELECT count(*) FROM login_ingest.ledger WHERE batch_id = batch.batch_id),
       (SELECT count(*) FROM login_ingest.quarantine WHERE batch_id = batch.batch_id)
FROM login_ingest.batch WHERE run_id = %s
"""

_COUNT_UNTOKENED = "SELECT login_ingest.non_token_rows()"

_READ_KEYS = """
SELECT keyset, key_id, check_value, retired_at IS NOT NULL FROM login_ingest.masking_key
ORDER BY keyset
"""

_REGISTER = "SELECT login_ingest.register_keys(%s::text[], %s::bigint[], %s::bytea[])"
