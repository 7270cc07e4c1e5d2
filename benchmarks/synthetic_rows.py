"""Synthetic rows of a large ledger and a large table, made by the server.

The rows have the form of real ones. Their tokens are digests: nothing opens them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

_ROWS_OF_STATEMENT = 1_000_000
_BATCH_MESSAGES = 10_000
_LEDGER_DAYS = 14
_TABLE_DAYS = 300

# Messages arrive in the order of their time, with random ids. Batch ids are negative: a batch that
# is committed takes the next positive one.
_FILL_LEDGER = """
INSERT INTO login_ingest.ledger (message_id, batch_id, sent_at)
SELECT gen_random_uuid()::text,
       -(line / %(batch)s) - 1,
       now() - make_interval(secs => %(days)s * 86400.0 * (%(total)s - line) / %(total)s)
FROM generate_series(%(first)s::bigint, %(last)s::bigint - 1) AS line
"""

# So that the balance of each batch holds.
_FILL_BATCHES = """
INSERT INTO login_ingest.batch (batch_id, run_id, received, loaded, quarantined, already_known,
                                oldest_sent_at, newest_sent_at)
SELECT batch_id, 'synthetic ' || batch_id, count(*), count(*), 0, 0, min(sent_at), max(sent_at)
FROM login_ingest.ledger WHERE batch_id < 0 GROUP BY batch_id
ON CONFLICT (batch_id) DO UPDATE
SET received = excluded.received, loaded = excluded.loaded, newest_sent_at = excluded.newest_sent_at
"""

# Of four consecutive logins two share a device, of ten two share an IP.
_FILL_TABLE = """
INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version,
                         create_date)
SELECT md5((line / 4)::text),
       CASE WHEN line %% 2 = 0 THEN 'ios' ELSE 'android' END,
       'ip:AQ' || translate(encode(ip || substr(ip, 1, 4), 'base64'), '+/', '-_'),
       'device_id:AQ' || translate(encode(device || substr(device, 1, 4), 'base64'), '+/', '-_'),
       CASE WHEN line %% 3 > 0 THEN 'en_US' END,
       2003000 + (line %% 7)::integer,
       current_date - ((%(total)s - line) * %(days)s / %(total)s)::integer
FROM generate_series(%(first)s::bigint, %(last)s::bigint - 1) AS line,
     LATERAL (SELECT sha256((line - line %% 10 / 9)::text::bytea) AS ip,
                     sha256(('device' || line - line %% 4 / 3)::bytea) AS device) AS digests
"""

_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = 'user_logins'::regclass
"""


def fill_ledger(url: str, first: int, last: int, total: int) -> None:
    """Adds the ledger's rows with these numbers; of the total, the oldest is 14 days old."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        values = {"batch": _BATCH_MESSAGES, "days": _LEDGER_DAYS, "total": total}
        _execute_in_parts(connection, _FILL_LEDGER, values, range(first, last))
        connection.execute(_FILL_BATCHES)
        connection.execute("VACUUM (ANALYZE) login_ingest.ledger")


def fill_table(url: str, first: int, last: int, total: int) -> None:
    """Adds the table's rows with these numbers, and makes its indexes anew."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '256MB'")
        with _without_indexes(connection):
            values = {"days": _TABLE_DAYS, "total": total}
            _execute_in_parts(connection, _FILL_TABLE, values, range(first, last))
        connection.execute("VACUUM (ANALYZE) user_logins")


def _execute_in_parts(
    connection: psycopg.Connection, statement: str, values: dict[str, int], rows: range
) -> None:
    for first in range(rows.start, rows.stop, _ROWS_OF_STATEMENT):
        last = min(rows.stop, first + _ROWS_OF_STATEMENT)
        connection.execute(statement.encode(), values | {"first": first, "last": last})


@contextmanager
def _without_indexes(connection: psycopg.Connection) -> Iterator[None]:
    indexes = connection.execute(_INDEXES).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}".encode())
    yield
    for _, definition in indexes:
        connection.execute(definition.encode())
