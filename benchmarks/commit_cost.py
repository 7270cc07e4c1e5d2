"""The cost of a commit, against a bare COPY of the same rows and against a full ledger.

    python benchmarks/commit_cost.py EMPTY_URL [FULL_URL]

Both databases are migrated; `growth_sql` fills the second. The cases are alternated. It prints the
median of their wall time and the mean CPU of client and server, and leaves its rows there.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
import psutil
import psycopg
from psycopg import sql

from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS, RAW_SCHEMA, mask_batch
from fetch_mask_assets.pipeline.warehouse import commit
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit

MESSAGES = 10_000
REPEATS = 15

_COPY = sql.SQL("COPY bare_logins ({}) FROM STDIN (FORMAT csv)").format(
    sql.SQL(", ").join(map(sql.Identifier, LOGIN_COLUMNS))
)


@dataclass(frozen=True)
class Cost:
    """Seconds of one commit."""

    wall: float
    client_cpu: float
    server_cpu: float


def make_bare_table(url: str) -> None:
    """A table like user_logins with its three indexes and nothing else."""
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE IF EXISTS bare_logins")
        connection.execute("CREATE TABLE bare_logins (LIKE user_logins INCLUDING ALL)")


def copy_bare(url: str, masked: pl.DataFrame) -> None:
    """The rows by one COPY, as anybody would write it."""
    rows = masked.select(LOGIN_COLUMNS).write_csv(include_header=False)
    with (
        psycopg.connect(url) as connection,
        connection.cursor() as cursor,
        cursor.copy(_COPY) as copy,
    ):
        copy.write(rows)


def _register(url: str, keyring: Keyring) -> None:
    # Whatever keys an earlier measurement has left there.
    keys = [
        (name, key_id, check)
        for name, checks in keyring.check_values.items()
        for key_id, check in checks.items()
    ]
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT login_ingest.register_keys(%s::text[], %s::bigint[], %s::bytea[])",
            [list(column) for column in zip(*keys, strict=True)],
        )


def commit_masked(url: str, masked: pl.DataFrame) -> None:
    """The rows by a commit of the pipeline."""
    commit.commit_batch(url, BatchToCommit(str(uuid.uuid4()), masked, lambda _: b""))


def cost_of(work: Callable[[], None], url: str) -> Cost:
    """The cost of one call; the server's CPU is that of its sessions that ended meanwhile."""
    before, client, started = _server_cpu(url), time.process_time(), time.perf_counter()
    work()
    wall, client = time.perf_counter() - started, time.process_time() - client
    return Cost(wall, client, _server_cpu(url) - before)


def _server_cpu(url: str) -> float:
    with psycopg.connect(url) as connection:
        parent = psutil.Process(connection.info.backend_pid).parent()
    if parent is None:
        raise RuntimeError("the server is not on this machine")
    # Processes that have ended are in the parent's times.
    times = parent.cpu_times()
    return float(times.children_user + times.children_system)


def _print(costs: dict[str, list[Cost]]) -> None:
    names = list(costs)
    base = _averages(costs[names[0]])
    for name in names:
        wall, client, server = _averages(costs[name])
        per_row = [seconds / MESSAGES * 1e6 for seconds in (wall, client, server)]
        ratios = [wall / base[0], (client + server) / (base[1] + base[2])]
        print(
            f"{name:26} us/row: wall {per_row[0]:6.1f} client {per_row[1]:5.1f}"
            f" server {per_row[2]:5.1f}; ratio: wall {ratios[0]:.2f} CPU {ratios[1]:.2f}"
        )


def _averages(costs: list[Cost]) -> tuple[float, float, float]:
    # The server's CPU is counted in hundredths of a second: only a mean is finer.
    return (
        statistics.median(each.wall for each in costs),
        statistics.mean(each.client_cpu for each in costs),
        statistics.mean(each.server_cpu for each in costs),
    )


def main(empty_url: str, full_url: str | None = None) -> None:
    """Measure and print."""
    keyring = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    for url in filter(None, (empty_url, full_url)):
        make_bare_table(url)
        _register(url, keyring)
    cases: dict[str, tuple[Callable[[str, pl.DataFrame], None], str]] = {
        "bare COPY": (copy_bare, empty_url),
        "commit, empty ledger": (commit_masked, empty_url),
    }
    if full_url:
        cases["bare COPY, other database"] = (copy_bare, full_url)
        cases["commit, full ledger"] = (commit_masked, full_url)
    costs: dict[str, list[Cost]] = {name: [] for name in cases}
    for _ in range(REPEATS):
        masked = mask_batch(_messages(), keyring)
        for name, (work, url) in cases.items():
            new = masked.with_columns(
                message_id=pl.Series([str(uuid.uuid4()) for _ in range(MESSAGES)])
            )
            costs[name].append(cost_of(lambda work=work, url=url, new=new: work(url, new), url))
    _print(costs)


def _messages() -> pl.DataFrame:
    now = datetime.now(UTC)
    bodies = [
        json.dumps(
            {
                "user_id": f"user-{number % 5_000}",
                "app_version": "2.3.0",
                "device_type": "android",
                "ip": f"10.{number % 7}.{number // 250}.{number % 250}",
                "locale": "en_US",
                "device_id": str(uuid.uuid4()),
            }
        )
        for number in range(MESSAGES)
    ]
    rows = [
        (str(uuid.uuid4()), "handle", now - timedelta(milliseconds=6 * number), 1, text)
        for number, text in enumerate(bodies)
    ]
    return pl.DataFrame(rows, schema=RAW_SCHEMA, orient="row")


if __name__ == "__main__":
    main(*sys.argv[1:3])
