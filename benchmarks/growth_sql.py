"""A ledger and a table of any size, made on the server.

    with psycopg.connect(url) as connection:
        fill_ledger(connection, rows=50_000_000, days=18)

The rows are as those of real batches of 10,000 messages: ids are random UUIDs, a day's send times
ascend, and each batch has its record, so that every balance holds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg

_MESSAGES_IN_BATCH = 10_000

_CREATE_DAY = """
DO $$ BEGIN
    IF to_regclass('login_ingest.{name}') IS NULL THEN
        SET ROLE login_ingest_owner;
        CREATE TABLE login_ingest.{name} PARTITION OF login_ingest.ledger
        FOR VALUES FROM ('{day} 00:00+00') TO ('{next_day} 00:00+00');
        RESET ROLE;
    END IF;
END $$
"""

# Negative ids, which the sequence of batches never reaches.
_FILL_LEDGER = """
INSERT INTO login_ingest.ledger (sent_at, batch_id, message_id)
SELECT %(day)s::timestamptz + n * (least(%(next_day)s, now()) - %(day)s::timestamptz) / %(rows)s,
       -(%(first_batch)s + n / %(size)s), gen_random_uuid()::text
FROM generate_series(0, %(rows)s - 1) AS n
"""

_FILL_BATCHES = """
INSERT INTO login_ingest.batch
    (batch_id, run_id, committed_at, received, loaded, quarantined, already_known,
     oldest_sent_at, newest_sent_at)
SELECT batch_id, 'synthetic' || batch_id, max(sent_at), count(*), count(*), 0, 0,
       min(sent_at), max(sent_at)
FROM login_ingest.ledger WHERE sent_at >= %(day)s AND sent_at < %(next_day)s AND batch_id < 0
GROUP BY batch_id
"""

# Tokens of random digits, as long as real ones. A device has eight logins, an IP a hundred.
_FILL_LOGINS = """
INSERT INTO user_logins
    (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
SELECT 'user-' || device, 'android',
       'ip:' || left(md5(ip::text) || md5(ip::text || 'x'), 50),
       'device_id:' || left(md5(device::text) || md5(device::text || 'y'), 50),
       'en_US', 2003000, current_date - (n % 300)::integer
FROM (SELECT n, (random() * %(rows)s / 100)::bigint AS ip,
             (random() * %(rows)s / 8)::bigint AS device
      FROM generate_series(1, %(rows)s) AS n) AS made
"""


def fill_ledger(connection: psycopg.Connection, rows: int, days: int) -> None:
    """Fill the ledger with rows of the last days, today included; commits each day.

    Args:
        connection: as the login that migrates.
        rows: in all days together.
        days: up to 18, so that nothing is due to be pruned. Today ends now.
    """
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for number in range(days):
        day = today - timedelta(days=number)
        next_day = day + timedelta(days=1)
        name = f"ledger_{day:%Y_%m_%d}"
        statement = _CREATE_DAY.format(name=name, day=day.date(), next_day=next_day.date())
        connection.execute(statement.encode())
        values = {
            "day": day,
            "next_day": next_day,
            "rows": rows // days,
            "size": _MESSAGES_IN_BATCH,
            "first_batch": 1 + number * (rows // days // _MESSAGES_IN_BATCH + 1),
        }
        connection.execute(_FILL_LEDGER, values)
        connection.execute(_FILL_BATCHES, values)
        connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM (ANALYZE) login_ingest.ledger")
    connection.autocommit = False


def fill_logins(connection: psycopg.Connection, rows: int) -> None:
    """Add made-up logins to user_logins."""
    connection.execute(_FILL_LOGINS, {"rows": rows})
    connection.commit()
