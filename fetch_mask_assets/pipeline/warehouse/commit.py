"""Commit a batch in one transaction: ledger, rows, quarantine and batch record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import polars as pl
import psycopg
from psycopg import sql

from fetch_mask_assets.errors import DatabaseError, RulesBrokenError
from fetch_mask_assets.keys.links import TokenLink, batch_links
from fetch_mask_assets.keys.postgres import lock_keys, write_links
from fetch_mask_assets.masking.fields import MASKED_FIELDS
from fetch_mask_assets.pipeline.batch.balance import Balance
from fetch_mask_assets.pipeline.batch.checked_batch import CheckedBatch
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS
from fetch_mask_assets.pipeline.contract.rejection import Reason
from fetch_mask_assets.pipeline.warehouse.ledger import insert_new_messages, is_older_than_ledger
from fetch_mask_assets.postgres.errors import RefusedRowError, translate_errors
from fetch_mask_assets.postgres.sessions import COMMIT, one_row, open_session, retry_transient

MAX_REFUSED_ROWS = 100
"""More refused rows than this in one batch are a fault of the table, not of the rows."""


@dataclass(frozen=True, slots=True)
class BatchToCommit:
    """A masked batch that is to be committed.

    `seal` returns the sealed body of a message that the database refuses, by message id; `links`
    lead from the tokens of the batch's values under other keys to their tokens in the batch.
    `is_moved` is whether SQS may have reset the send times, as for the dead-letter queue of a FIFO
    queue.
    """

    run_id: str
    masked: pl.DataFrame
    seal: Callable[[str], bytes] = field(repr=False)
    links: Sequence[TokenLink] = field(default=(), repr=False)
    is_moved: bool = False


def commit_checked(
    database_url: str, run_id: str, batch: CheckedBatch, *, is_moved: bool = False
) -> Balance:
    """Writes a batch that keeps every masking rule; an empty one writes nothing.

    Args:
        database_url: libpq URL.
        run_id: the run that received the batch.
        batch: the masked batch with its verdict.
        is_moved: whether SQS may have reset the send times; see `BatchToCommit`.

    Raises:
        RulesBrokenError: it breaks a rule; nothing was written.
        DatabaseError: nothing was written, or the outcome is unclear.
    """
    _refuse_broken(batch)
    if batch.masked.is_empty():
        return Balance()
    return commit_batch(database_url, replace(_to_commit(run_id, batch), is_moved=is_moved))


def _refuse_broken(batch: CheckedBatch) -> None:
    # A run that was started without its checks must not write what they would have stopped.
    if batch.broken:
        counts = ", ".join(f"{name} ({count})" for name, count in batch.broken.items())
        raise RulesBrokenError(
            f"the masked batch breaks the masking rules {counts}: nothing was written, and the"
            " messages go back to the queue."
        )


def _to_commit(run_id: str, batch: CheckedBatch) -> BatchToCommit:
    bodies = batch.batch.raw.select("message_id", "body")

    def seal(message_id: str) -> bytes:
        body = bodies.filter(pl.col("message_id") == message_id)["body"][0]
        return batch.keyring.sealer.seal(body, message_id)

    return BatchToCommit(run_id, batch.masked, seal, batch_links(batch.masked, batch.keyring))


@retry_transient()
def commit_batch(database_url: str, batch: BatchToCommit) -> Balance:
    """Write a batch in one transaction: ledger, rows, quarantine, batch record.

    A repetition changes nothing: a message id is committed once, and a run's batch is recorded
    once. A row that the database refuses is quarantined, and so is a message that is older than the
    ledger reaches: it may have been loaded before.

    Raises:
        DatabaseError: nothing was written, or it is unclear; the messages must go back.
    """
    with open_session(database_url, COMMIT, "commit a batch") as connection:
        _write(connection, batch)
        return Balance(*one_row(connection, _READ_RECORD, batch.run_id))


def _write(connection: psycopg.Connection, batch: BatchToCommit) -> None:
    (batch_id,) = one_row(connection, _NEXT_BATCH_ID)
    new = insert_new_messages(connection, batch_id, batch.masked, is_moved=batch.is_moved)
    logins, rejected = _load(connection, batch, new)
    lock_keys(connection, logins, rejected["sealed_body"])
    quarantined = _insert_quarantine(connection, batch_id, rejected)
    _insert_versions(connection, batch_id, logins)
    # Late, because other writers of links wait from here until the end of the transaction.
    write_links(connection, _links_of(batch.links, logins))
    record = {
        "batch_id": batch_id,
        "run_id": batch.run_id,
        "received": batch.masked.height,
        "loaded": logins.height,
        "quarantined": quarantined,
        "already_known": batch.masked.height - new.height,
        "oldest_sent_at": batch.masked["sent_at"].min(),
        "newest_sent_at": batch.masked["sent_at"].max(),
    }
    connection.execute(_INSERT_RECORD, record)


def _load(
    connection: psycopg.Connection, batch: BatchToCommit, new: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Copy the new logins into `user_logins`; return the loaded ones, and all rejections."""
    is_login = pl.col("reason").is_null()
    is_older = is_older_than_ledger(connection, batch.is_moved)
    older, logins = new.filter(is_login & is_older), new.filter(is_login & ~is_older)
    is_refused = pl.col("message_id").is_in(_copy_logins(connection, logins))
    rejected = [
        new.filter(~is_login),
        _rejections(older, Reason.OLDER_THAN_LEDGER, batch.seal),
        _rejections(logins.filter(is_refused), Reason.REFUSED_BY_DATABASE, batch.seal),
    ]
    return logins.filter(~is_refused), pl.concat(rejected)


def _copy_logins(connection: psycopg.Connection, logins: pl.DataFrame) -> list[str]:
    """Copy rows into `user_logins`; return the message ids of the refused rows.

    A part that is refused is halved, until the row that the table refuses is alone.
    """
    refused_ids: list[str] = []
    pending = [logins] if logins.height else []
    while pending:
        part = pending.pop()
        if _copy_part(connection, part):
            continue
        if part.height > 1:
            pending += [part.head(part.height // 2), part.tail(-(part.height // 2))]
            continue
        refused_ids += part["message_id"].to_list()
        _require_few(refused_ids)
    return refused_ids


def _require_few(refused_ids: Sequence[str]) -> None:
    if len(refused_ids) > MAX_REFUSED_ROWS:
        raise DatabaseError(
            f"user_logins refuses more than {MAX_REFUSED_ROWS} rows of one batch: compare"
            " its columns and constraints with the documentation. Nothing was written."
        )


def _copy_part(connection: psycopg.Connection, part: pl.DataFrame) -> bool:
    """Return whether the table accepts these rows; if not, it is unchanged."""
    try:
        with translate_errors("copy rows"), connection.transaction():
            cursor = connection.cursor()
            with cursor.copy(_COPY) as copy:
                for rows in part.select(LOGIN_COLUMNS).iter_slices():
                    copy.write(rows.write_csv(include_header=False))
            _refuse_lost_rows(cursor.rowcount, part.height)
            # A deferred constraint would fail at COMMIT, and for the whole batch.
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


def _rejections(rows: pl.DataFrame, reason: Reason, seal: Callable[[str], bytes]) -> pl.DataFrame:
    """Logins of the masked batch that are not loaded, as rejections."""
    bodies = [seal(message_id) for message_id in rows["message_id"]]
    return rows.with_columns(
        reason=pl.lit(reason.value), sealed_body=pl.Series(bodies, dtype=pl.Binary)
    )


def _insert_quarantine(
    connection: psycopg.Connection, batch_id: int, rejected: pl.DataFrame
) -> int:
    """Insert rejected messages; return their number."""
    columns = ("message_id", "reason", "field", "sent_at", "receive_count", "sealed_body")
    with connection.cursor() as cursor:
        cursor.executemany(
            _INSERT_QUARANTINE, [(batch_id, *row) for row in rejected.select(columns).iter_rows()]
        )
        return max(cursor.rowcount, 0)


def _insert_versions(connection: psycopg.Connection, batch_id: int, logins: pl.DataFrame) -> None:
    """Insert the number of logins of each day and version."""
    columns = ("create_date", "app_version_text", "app_version")
    counts = logins.group_by(columns).len().sort(columns)
    if counts.height:
        values = {"batch_id": batch_id, **counts.to_dict(as_series=False)}
        connection.execute(_INSERT_VERSIONS, values)


def _links_of(links: Sequence[TokenLink], logins: pl.DataFrame) -> list[TokenLink]:
    if not links:
        return []
    # A message that is received again must not restore the links of a value that was erased since.
    loaded = {token for field in MASKED_FIELDS for token in logins[field.column]}
    return [link for link in links if link.new_token in loaded]


_NEXT_BATCH_ID = "SELECT nextval(pg_get_serial_sequence('login_ingest.batch', 'batch_id'))"

_COPY = sql.SQL("COPY user_logins ({}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')").format(
    sql.SQL(", ").join(map(sql.Identifier, LOGIN_COLUMNS))
)

_INSERT_QUARANTINE = """
INSERT INTO login_ingest.quarantine
       (batch_id, message_id, reason, field, sent_at, receive_count, sealed_body)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""

_INSERT_VERSIONS = """
INSERT INTO login_ingest.version_count (batch_id, create_date, version_text, app_version, logins)
SELECT %(batch_id)s, counts.*
FROM unnest(%(create_date)s::date[], %(app_version_text)s::text[], %(app_version)s::integer[],
            %(len)s::bigint[]) AS counts
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
