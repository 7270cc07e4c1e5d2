"""The ledger: which messages of a batch are new, and for how many days it keeps them.

Its key is the send time and the message id. SQS keeps a message for at most 14 days, and its send
time is the same in every delivery, with one exception: a move to the dead-letter queue of a FIFO
queue resets it.
Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/setting-up-dead-letter-queue-retention.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl
import psycopg
from psycopg import errors

from fetch_mask_assets.postgres.sessions import LONG_RECORD, one_row, open_session, retry_transient

MAX_MESSAGE_AGE = timedelta(days=14)
"""SQS's maximum of MessageRetentionPeriod."""

_SECONDS_IN_DAY = 86_400


@dataclass(frozen=True, slots=True)
class PrunedDay:
    """A UTC day that was dropped from the ledger, and the number of its messages."""

    day: date
    messages: int


def insert_new_messages(
    connection: psycopg.Connection, batch_id: int, masked: pl.DataFrame, *, is_moved: bool
) -> pl.DataFrame:
    """Insert the messages that were not committed before; return their first rows.

    Args:
        connection: in a transaction, which holds up the pruning of the ledger from now on.
        batch_id: the batch that they are committed with.
        masked: a frame of `MASKED_SCHEMA`.
        is_moved: whether the send times may differ from those of earlier deliveries. The whole
            ledger is then searched for the message ids, and other commits wait.

    Raises:
        psycopg.Error: wrap the call in `translate_errors`.
    """
    messages = masked.unique("message_id", keep="first", maintain_order=True)
    if is_moved:
        messages = _without_known(connection, messages)
    new = _insert(connection, batch_id, messages)
    if is_moved:
        connection.execute(_RECORD_MOVED, [new["message_id"].to_list()])
    return new


def is_older_than_ledger(connection: psycopg.Connection, is_moved: bool) -> pl.Expr:  # noqa: FBT001 (a fact)
    """Whether a message may have been committed on a day that was dropped.

    Call it after `insert_new_messages` in the same transaction, so that no day is dropped between.
    """
    (start,) = one_row(connection, "SELECT login_ingest.ledger_start()")
    if start is None:
        return pl.lit(value=False)
    # A moved message was first sent at most so long before its reset send time.
    reset_by = MAX_MESSAGE_AGE if is_moved else timedelta(0)
    return pl.col("sent_at") < pl.lit(start + reset_by)


def ledger_problems(keep_days: int, queue_seconds: int, dead_letter_seconds: int) -> Iterator[str]:
    """Messages of a FIFO queue that outlive the ledger, which the settings of its queues allow.

    Args:
        keep_days: days for which the ledger keeps a message id.
        queue_seconds: MessageRetentionPeriod of the queue.
        dead_letter_seconds: MessageRetentionPeriod of its dead-letter queue, which counts anew.
    """
    needed = -(-(queue_seconds + dead_letter_seconds) // _SECONDS_IN_DAY) + 1
    if keep_days < needed:
        yield (
            f"LOGIN_LEDGER_DAYS is {keep_days}: set it to {needed} or more, because SQS resets the"
            " send time of a message that it moves to the dead-letter queue of a FIFO queue."
            " Otherwise old dead letters are quarantined as older_than_ledger."
        )


def create_partitions(database_url: str) -> int:
    """Create the daily partitions that are due, up to two days ahead.

    Returns:
        The number of new partitions.

    Raises:
        DatabaseError: none was created; messages go to the default partition meanwhile.
    """
    with open_session(database_url, LONG_RECORD, "make partitions") as connection:
        (created,) = one_row(connection, "SELECT login_ingest.create_ledger_partitions()")
    return int(created)


def prune(database_url: str, keep_days: int) -> Iterator[PrunedDay]:
    """Drop the days that ended more than `keep_days` days ago, each in a transaction.

    The numbers of their messages by batch stay.

    Raises:
        DatabaseError: fewer than 15 days are to be kept, or the ledger was in use; the days
            yielded are dropped.
    """
    while pruned := _prune_day(database_url, keep_days):
        yield pruned


@retry_transient()
def _prune_day(database_url: str, keep_days: int) -> PrunedDay | None:
    with open_session(database_url, LONG_RECORD, "prune the ledger") as connection:
        day, messages = one_row(
            connection, "SELECT * FROM login_ingest.prune_ledger(%s)", keep_days
        )
    return None if day is None else PrunedDay(day, messages)


def _without_known(connection: psycopg.Connection, messages: pl.DataFrame) -> pl.DataFrame:
    known = connection.execute(_FIND_KNOWN, [messages["message_id"].to_list()])
    return messages.filter(~pl.col("message_id").is_in([id_ for (id_,) in known]))


def _insert(connection: psycopg.Connection, batch_id: int, messages: pl.DataFrame) -> pl.DataFrame:
    # Sorted, so that two batches with messages in common lock them in the same order.
    rows = messages.sort("sent_at", "message_id").select(
        "sent_at", "message_id", batch_id=pl.lit(batch_id)
    )
    was_received_before = bool((messages["receive_count"] > 1).any())
    if not was_received_before and _copy_unless_known(connection, rows):
        return messages
    values = {
        "batch_id": batch_id,
        "sent_at": rows["sent_at"].to_list(),
        "message_ids": rows["message_id"].to_list(),
    }
    connection.execute(_INSERT_LEDGER, values)
    new = connection.execute(_READ_LEDGER, [batch_id])
    return messages.filter(pl.col("message_id").is_in([id_ for (id_,) in new]))


def _copy_unless_known(connection: psycopg.Connection, rows: pl.DataFrame) -> bool:
    """Return whether all messages were inserted; if not, none was, and one may be known."""
    try:
        with connection.transaction() as attempt:
            with connection.cursor() as cursor, cursor.copy(_COPY_LEDGER) as copy:
                for part in rows.iter_slices():
                    copy.write(part.write_csv(include_header=False))
            (may_be_known,) = one_row(connection, _MAY_BE_KNOWN, rows["sent_at"].min())
            if may_be_known:
                raise psycopg.Rollback(attempt)
            return True
    except errors.UniqueViolation:
        pass
    return False


_COPY_LEDGER = """
COPY login_ingest.ledger (sent_at, message_id, batch_id) FROM STDIN (FORMAT csv, ENCODING 'UTF8')
"""

# Known by other signs than the key: an index on the message id would cost more than the rest of
# the insert.
_MAY_BE_KNOWN = """
SELECT EXISTS (SELECT FROM login_ingest.moved_message)
    OR (%s < login_ingest.ledger_start()) IS TRUE
"""

# An older message that is quarantined was committed before, whatever the ledger has dropped.
_INSERT_LEDGER = """
INSERT INTO login_ingest.ledger (sent_at, message_id, batch_id)
SELECT sent_at, message_id, %(batch_id)s
FROM unnest(%(sent_at)s::timestamptz[], %(message_ids)s::text[]) AS received (sent_at, message_id)
WHERE NOT EXISTS (SELECT FROM login_ingest.moved_message AS moved
                  WHERE moved.message_id = received.message_id)
  AND ((sent_at < login_ingest.ledger_start()) IS NOT TRUE
       OR NOT EXISTS (SELECT FROM login_ingest.quarantine AS quarantined
                      WHERE quarantined.message_id = received.message_id))
ORDER BY sent_at, message_id COLLATE "C"
ON CONFLICT DO NOTHING
"""

_READ_LEDGER = "SELECT message_id FROM login_ingest.ledger WHERE batch_id = %s"

_FIND_KNOWN = "SELECT login_ingest.known_messages(%s::text[])"

_RECORD_MOVED = """
INSERT INTO login_ingest.moved_message (message_id) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING
"""
