"""The gain of the indexes for the views of analysts, and their cost for a COPY, in one run.

Run it with `python -m benchmarks.analysis`. Makes a database of its own beside
LOGIN_DATABASE_URL's, fills user_logins on the server, and drops it. The tokens are made up: 50
random digits, as long as real ones. The first argument is the number of rows, a million unless
given; ten million take about 3 GB of disk and ten minutes.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import LiteralString

import psycopg
from psycopg import sql

from benchmarks.databases import scratch_database

_DEVICE = "user_logins_masked_device_id"
_IP = "user_logins_masked_ip"
_USER = "user_logins_user_id"
_WIDE_DEVICE = "user_logins_device_users"
_WIDE_IP = "user_logins_ip_users"

_MAKE: dict[str, LiteralString] = {
    _IP: "CREATE INDEX user_logins_masked_ip ON user_logins (masked_ip text_pattern_ops)",
    _DEVICE: (
        "CREATE INDEX user_logins_masked_device_id"
        " ON user_logins (masked_device_id text_pattern_ops)"
    ),
    _USER: "CREATE INDEX user_logins_user_id ON user_logins (user_id)",
    _WIDE_DEVICE: (
        "CREATE INDEX user_logins_device_users"
        " ON user_logins (masked_device_id, user_id, create_date)"
    ),
    _WIDE_IP: "CREATE INDEX user_logins_ip_users ON user_logins (masked_ip, user_id, create_date)",
}
_BY_MIGRATION = (_IP, _DEVICE, _USER)

# A user has a device; of 33 logins one is with the device of another. An IP has about a hundred.
_FILL = """
INSERT INTO user_logins
SELECT 'user-' || CASE WHEN random() < 0.03 THEN (random() * %(rows)s / 8)::int ELSE device END,
       'android',
       'ip:' || left(md5(ip::text) || md5(ip::text || 'x'), 50),
       'device_id:' || left(md5(device::text) || md5(device::text || 'y'), 50),
       'en_US', 2003000 + line %% 7 * 1000, date '2026-01-01' + (line * 300::bigint / %(rows)s)::int
FROM (SELECT line, (random() * %(rows)s / 100)::int AS ip, (random() * %(rows)s / 8)::int AS device
      FROM generate_series(1, %(rows)s) AS line) AS made
"""

_TOP: LiteralString = "SELECT * FROM login_ingest.{} ORDER BY {} DESC LIMIT 20"

# A question, its statement, and the index that it is asked with and without.
_QUESTIONS: tuple[tuple[str, LiteralString, str], ...] = (
    (
        "one device",
        "SELECT * FROM login_ingest.repeated_devices WHERE masked_device_id = %(device)s",
        _DEVICE,
    ),
    ("one IP", "SELECT * FROM login_ingest.repeated_ips WHERE masked_ip = %(ip)s", _IP),
    ("one user's devices", "SELECT * FROM login_ingest.device_users WHERE user_id = %(u)s", _USER),
    (
        "who shares a user's devices",
        (
            "SELECT * FROM login_ingest.device_users WHERE masked_device_id = ANY (ARRAY("
            "SELECT masked_device_id FROM login_ingest.device_users WHERE user_id = %(u)s))"
        ),
        _USER,
    ),
    (
        "one user's logins",
        "SELECT * FROM login_ingest.readable_logins WHERE user_id = %(u)s",
        _USER,
    ),
    ("20 devices", _TOP.format("repeated_devices", "logins"), _WIDE_DEVICE),
    ("20 IPs", _TOP.format("repeated_ips", "logins"), _WIDE_IP),
    ("20 pairs", _TOP.format("users_sharing_devices", "devices"), _WIDE_DEVICE),
)

_COPY = "COPY user_logins FROM STDIN (FORMAT csv)"
_COPIED_ROWS = 10_000
_COPIES = 7


def main() -> None:
    """Prints seconds without and with each index, their ratio, and what a COPY costs."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with (
        scratch_database(os.environ["LOGIN_DATABASE_URL"]) as database_url,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        fill(connection, rows)
        print(f"{rows:,} rows\n")
        ask_all(connection)
        copy_all(connection)


def fill(connection: psycopg.Connection, rows: int) -> None:
    """Fills the table, with no index until it is full."""
    connection.execute("SET maintenance_work_mem = '256MB'")
    for index in _BY_MIGRATION:
        drop(connection, index)
    connection.execute(_FILL, {"rows": rows})
    for index in _BY_MIGRATION:
        connection.execute(_MAKE[index])
    connection.execute("VACUUM (ANALYZE) user_logins")


def ask_all(connection: psycopg.Connection) -> None:
    """Asks each question without and with its index."""
    [values] = connection.execute(
        "SELECT masked_device_id, masked_ip, user_id FROM user_logins LIMIT 1 OFFSET 5000"
    ).fetchall()
    named = dict(zip(("device", "ip", "u"), values, strict=True))
    print(f"{'question':28} {'without':>9} {'with':>9} {'ratio':>8}  index, and whether it is used")
    for question, statement, index in _QUESTIONS:
        drop(connection, index)
        without = seconds(connection, statement, named)
        connection.execute(_MAKE[index])
        connection.execute("VACUUM (ANALYZE) user_logins")
        having = seconds(connection, statement, named)
        is_used = "used" if index in plan(connection, statement, named) else "not used"
        ratio = without / having
        print(f"{question:28} {without:8.3f}s {having:8.3f}s {ratio:8.1f}  {index}: {is_used}")
        if index not in _BY_MIGRATION:
            drop(connection, index)


def copy_all(connection: psycopg.Connection) -> None:
    """Copies batches with fewer and more indexes, in turns, and takes the median of each."""
    connection.execute("SET synchronous_commit = on")
    print(f"\nCOPY of {_COPIED_ROWS:,} rows, median of {_COPIES}")
    sets: dict[str, tuple[str, ...]] = {
        "without user_logins_user_id": (_IP, _DEVICE),
        "as migrated": _BY_MIGRATION,
        "with both wide indexes": tuple(_MAKE),
    }
    first = 0.0
    for name, indexes in sets.items():
        for index in _MAKE:
            drop(connection, index)
        for index in indexes:
            connection.execute(_MAKE[index])
        connection.execute("CHECKPOINT")
        took = statistics.median(copy_once(connection, number) for number in range(_COPIES))
        first = first or took
        size = size_of(connection, indexes)
        print(f"{name:28} {took:8.3f}s {took / first:8.2f}  indexes of {size:,.0f} MB")


def copy_once(connection: psycopg.Connection, number: int) -> float:
    """Seconds for one batch, committed."""
    csv = "\n".join(line(number * _COPIED_ROWS + place) for place in range(_COPIED_ROWS)) + "\n"
    started = time.perf_counter()
    with connection.cursor().copy(_COPY) as copy:
        copy.write(csv)
    return time.perf_counter() - started


def line(number: int) -> str:
    """A row with tokens of its own, as CSV."""
    token = hashlib.sha256(str(number).encode()).hexdigest()[:50]
    return f"user-{token[:7]},android,ip:{token},device_id:{token},en_US,2003000,2026-11-01"


def drop(connection: psycopg.Connection, index: str) -> None:
    """Drops an index if it is there."""
    connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(index)))


def seconds(
    connection: psycopg.Connection, statement: LiteralString, values: dict[str, str]
) -> float:
    """The shorter of two times that a statement takes."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        connection.execute(statement, values).fetchall()
        times.append(time.perf_counter() - started)
    return min(times)


def plan(connection: psycopg.Connection, statement: LiteralString, values: dict[str, str]) -> str:
    """The plan of Postgres for a statement."""
    lines = connection.execute(sql.SQL("EXPLAIN ") + sql.SQL(statement), values)
    return "\n".join(str(each) for (each,) in lines)


def size_of(connection: psycopg.Connection, indexes: Sequence[str]) -> float:
    """The size of some indexes in MB."""
    [(size,)] = connection.execute(
        "SELECT sum(pg_relation_size(name::regclass)) FROM unnest(%s::text[]) AS name",
        [list(indexes)],
    ).fetchall()
    return float(size) / 2**20


if __name__ == "__main__":
    main()
