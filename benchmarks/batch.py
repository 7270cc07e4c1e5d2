"""What a batch costs, stage by stage, beside the script that this product replaces.

Makes a database of its own beside LOGIN_DATABASE_URL's, and drops it. The script put MD5 over both
fields and inserted row by row. Run it with `make benchmark`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import polars as pl
import psycopg
from psycopg import sql

from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.keyset_change import rotated
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.keys.postgres import register_keys
from fetch_mask_assets.pipeline.batch.frames import RAW_SCHEMA, mask_batch
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch
from fetch_mask_assets.pipeline.batch.masking_rules import broken_rules
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.postgres.migrate import upgrade

_MESSAGES = 10_000
_INSERT = "INSERT INTO user_logins VALUES (%s, %s, %s, %s, %s, %s, %s)"


def messages(count: int) -> pl.DataFrame:
    """A raw batch with some repeated IPs and devices."""
    bodies = [
        json.dumps(
            {
                "user_id": f"user-{number % 3_000}",
                "app_version": "2.3.0",
                "device_type": "ios",
                "ip": f"198.51.{number // 251 % 100}.{number % 251}",
                "locale": "RU",
                "device_id": f"{number % 5_000:09d}",
            }
        )
        for number in range(count)
    ]
    columns = {
        "message_id": [str(uuid.uuid4()) for _ in bodies],
        "receipt_handle": [""] * count,
        "sent_at": [datetime.now(UTC)] * count,
        "receive_count": [1] * count,
        "body": bodies,
    }
    return pl.DataFrame(columns, schema=RAW_SCHEMA)


def script_way(raw: pl.DataFrame, database_url: str) -> None:
    """The script: decode, MD5, one INSERT for each row, one commit."""
    with psycopg.connect(database_url) as connection:
        for body in raw["body"]:
            event = json.loads(body)
            connection.execute(
                _INSERT,
                (
                    event["user_id"],
                    event["device_type"],
                    hashlib.md5(event["ip"].encode()).hexdigest(),
                    hashlib.md5(event["device_id"].encode()).hexdigest(),
                    event["locale"],
                    int(event["app_version"].replace(".", "")),
                    datetime.now(UTC).date(),
                ),
            )
        connection.rollback()


def linked(keyring: Keyring) -> BatchToCommit:
    """A batch that links each of its tokens to the one under the older key."""
    masked = mask_batch(messages(_MESSAGES), keyring)
    links = batch_links(masked, keyring)
    return BatchToCommit(str(uuid.uuid4()), masked, seal=lambda _: b"", links=links)


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Prints messages per second of each stage, and the whole as a ratio to the script."""
    with scratch_database(os.environ["LOGIN_DATABASE_URL"]) as database_url:
        measure(database_url)


@contextmanager
def scratch_database(url: str) -> Iterator[str]:
    """A migrated database that is gone afterwards."""
    name = f"benchmark_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own = psycopg.conninfo.make_conninfo(url, dbname=name)
            upgrade(own)
            yield own
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def measure(database_url: str) -> None:
    """Runs each stage once and prints."""
    raw = messages(_MESSAGES)
    keysets = {name: new_keyset(name) for name in KEYSET_NAMES}
    keyring: Keyring = open_keyring(keysets)
    newer = open_keyring({name: rotated(name, keyset).keyset for name, keyset in keysets.items()})
    masked = mask_batch(raw, keyring)
    database = LoginDatabase(database_url)
    register_keys(database.url, newer.check_values)
    batch = BatchToCommit(str(uuid.uuid4()), masked, seal=lambda _: b"")
    stages = {
        "decode, validate, mask": seconds(lambda: mask_batch(raw, keyring)),
        "masking rules": seconds(lambda: broken_rules(MaskedBatch(raw, masked, keyring))),
        "commit": seconds(lambda: database.commit_batch(batch)),
    }
    script = seconds(lambda: script_way(raw, database_url))
    whole = sum(stages.values()) + stages["masking rules"]
    amid = linked(newer)
    stages["commit amid a rotation"] = seconds(lambda: database.commit_batch(amid))
    for name, took in stages.items():
        print(f"{name:24} {_MESSAGES / took:10,.0f} messages/s")
    print(f"{'a batch, rules twice':24} {_MESSAGES / whole:10,.0f} messages/s")
    print(f"{'MD5, row by row':24} {_MESSAGES / script:10,.0f} messages/s")
    print(f"{'ratio':24} {script / whole:10.2f}")


if __name__ == "__main__":
    sys.exit(main())
