"""What is in the tables, read as the administrator, past every fault.

Belongs here: SQL that reads, and what tokens open to. Does not belong here: what must be in the
tables (`invariants`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import psycopg

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets_tests.chaos.invariants import Batch, Row
from fetch_mask_assets_tests.support import canaries


def rows(url: str, keyring: Keyring) -> tuple[Row, ...]:
    """The rows of user_logins, with what these keys open their tokens to."""
    return tuple(_as_row(line, keyring) for line in _select(url, _ROWS))


def opened_with_other_keys(seen: Iterable[Row]) -> int:
    """How many tokens of these rows open with keys that were never used."""
    pairs = [_opened(each.ip_token, each.device_token, _other_keys()) for each in seen]
    return sum(value is not None for pair in pairs for value in pair)


def ledger(url: str) -> tuple[str, ...]:
    """The message ids of the ledger."""
    return tuple(id_ for (id_,) in _select(url, "SELECT message_id FROM login_ingest.ledger"))


def quarantine(url: str) -> tuple[str, ...]:
    """The message ids in quarantine."""
    return tuple(id_ for (id_,) in _select(url, "SELECT message_id FROM login_ingest.quarantine"))


def batches(url: str) -> tuple[Batch, ...]:
    """The batch records."""
    return tuple(Batch(*line) for line in _select(url, _BATCHES))


def recorded(url: str) -> dict[str, int]:
    """What all batch records come to, by the names that an ingestion prints."""
    found = batches(url)
    return {
        "received": sum(batch.received for batch in found),
        "loaded": sum(batch.loaded for batch in found),
        "quarantined": sum(batch.quarantined for batch in found),
        "already_known": sum(batch.already_known for batch in found),
        "batches": len(found),
    }


def replayed(url: str) -> int:
    """How many messages replays brought from the quarantine into user_logins."""
    [(count,)] = _select(url, "SELECT coalesce(sum(replayed), 0)::int FROM login_ingest.replay")
    return int(count)


def raw_values(url: str, values: Iterable[str]) -> int:
    """How often any of these values can be read in any column of any table."""
    return canaries.raw_values(b"\n".join(_texts(url)), values)


def _texts(url: str) -> Iterator[bytes]:
    for (table,) in _select(url, _TABLES):
        for (line,) in _select(url, f"SELECT t::text FROM {table} t"):
            yield line.encode()


def _select(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def _as_row(line: tuple[Any, ...], keyring: Keyring) -> Row:
    user_id, ip, device, linked_ip, linked_device, day = line
    return Row(user_id, ip, device, linked_ip, linked_device, day, *_opened(ip, device, keyring))


def _opened(ip: str, device: str, keyring: Keyring) -> tuple[str | None, str | None]:
    return _open(keyring.masker("ip").unmask, ip), _open(keyring.masker("device_id").unmask, device)


def _open(unmask: Callable[[str], str], token: str) -> str | None:
    try:
        return unmask(token)
    except TokenError:
        return None


@cache
def _other_keys() -> Keyring:
    return open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})


_ROWS = """
SELECT login.user_id, login.masked_ip, login.masked_device_id,
       coalesce(ip.new_token, login.masked_ip), coalesce(device.new_token, login.masked_device_id),
       login.create_date
FROM user_logins AS login
LEFT JOIN login_ingest.token_link AS ip
       ON ip.field = 'ip' AND ip.old_token = login.masked_ip
LEFT JOIN login_ingest.token_link AS device
       ON device.field = 'device_id' AND device.old_token = login.masked_device_id
"""
_BATCHES = "SELECT run_id, received, loaded, quarantined, already_known FROM login_ingest.batch"
_TABLES = """
SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""
