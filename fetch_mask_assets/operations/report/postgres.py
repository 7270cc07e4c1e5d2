"""What a report says of the warehouse, read in one snapshot by somebody who only reads.

A part that is refused is given as unreadable with the reason; the others are read all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import LiteralString, TypeVar

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import class_row

from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES
from fetch_mask_assets.keys.postgres import registered_keys, rows_by_key
from fetch_mask_assets.operations.report.audit_summary import AuditSummary, summarize_audit
from fetch_mask_assets.operations.report.report import (
    BalancePart,
    BatchRow,
    BatchSum,
    ErasureRow,
    ErasuresPart,
    KeysPart,
    LinkCount,
    Period,
    QuarantinePart,
    ReasonCount,
    ReportedKey,
    RequestRow,
    RequestsPart,
    RetentionPart,
    TableSum,
    Unreadable,
    shown_code,
    shown_ticket,
    summed,
)
from fetch_mask_assets.postgres import migrate
from fetch_mask_assets.postgres.errors import translate_errors
from fetch_mask_assets.postgres.sessions import REPORT, one_row, open_session

MAX_BATCHES = 100
"""A period of more batches is shown by day."""

MAX_UNBALANCED = 200
MAX_ROWS = 200
"""Certificates and requests that are shown, the newest."""

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class RetentionDays:
    """For how long quarantined messages and finished runs are kept."""

    quarantine: int
    runs: int


@dataclass(frozen=True, slots=True)
class WarehouseFacts:
    """The parts of a report that the warehouse gives."""

    person: str | Unreadable
    schema: str | Unreadable | None
    postgres: str | Unreadable
    balance: BalancePart | Unreadable
    keys: KeysPart | Unreadable
    quarantine: QuarantinePart | Unreadable
    erasures: ErasuresPart | Unreadable
    retention: RetentionPart | Unreadable
    requests: RequestsPart | Unreadable
    audit: AuditSummary | Unreadable


@dataclass(frozen=True, slots=True)
class ReportReader:
    """A warehouse as the maker of a report reads it, by its libpq URL."""

    url: str = field(repr=False)
    retention: RetentionDays

    def facts(self, period: Period, expected_hash: bytes | None = None) -> WarehouseFacts:
        """Every part, or why it could not be read; never raises for a part."""
        audit = _try("read the audit", lambda: self._audit(period, expected_hash))
        try:
            with open_session(self.url, REPORT, "report") as connection:
                connection.isolation_level = IsolationLevel.REPEATABLE_READ
                return _facts(connection, period, self.retention, audit)
        except DatabaseError as error:
            return _nothing(Unreadable(str(error)), audit)

    def _audit(self, period: Period, expected: bytes | None) -> AuditSummary:
        return summarize_audit(Audit(self.url).rows(), period.since, period.until, expected)


def _facts(
    connection: psycopg.Connection,
    period: Period,
    days: RetentionDays,
    audit: AuditSummary | Unreadable,
) -> WarehouseFacts:
    def read(verb: str, reader: Callable[[], _Part]) -> _Part | Unreadable:
        def within_savepoint() -> _Part:
            with connection.transaction():
                return reader()

        return _try(verb, within_savepoint)

    requests = read("read the requests to unmask", lambda: _requests(connection, period))
    return WarehouseFacts(
        person=read("ask who this is", lambda: _text(connection, "SELECT session_user")),
        schema=read("read its schema version", lambda: migrate.current(connection)),
        postgres=read("ask for its version", lambda: _text(connection, "SHOW server_version")),
        balance=read("read the balance", lambda: _balance(connection, period)),
        keys=read("count rows by key", lambda: _keys(connection)),
        quarantine=read("read the quarantine", lambda: _quarantine(connection, period)),
        erasures=read("read the erasures", lambda: _erasures(connection, period)),
        retention=read("read what is kept", lambda: _retention(connection, days)),
        requests=_with_reveals(requests, audit),
        audit=audit,
    )


def _nothing(why: Unreadable, audit: AuditSummary | Unreadable) -> WarehouseFacts:
    return WarehouseFacts(why, why, why, why, why, why, why, why, why, audit)


def _try(verb: str, reader: Callable[[], _Part]) -> _Part | Unreadable:
    try:
        with translate_errors(verb):
            return reader()
    except DatabaseError as error:
        return Unreadable(str(error))


def _text(connection: psycopg.Connection, statement: LiteralString) -> str:
    return str(one_row(connection, statement)[0])


def _balance(connection: psycopg.Connection, period: Period) -> BalancePart:
    span = [period.since, period.until]
    lines = [
        (day, is_of_period, BatchSum(*counts))
        for day, is_of_period, *counts in connection.execute(_DAYS, span)
    ]
    days = tuple((day, each) for day, is_of_period, each in lines if is_of_period)
    in_period = summed(each for _, each in days)
    with connection.cursor(row_factory=class_row(BatchRow)) as cursor:
        unbalanced = tuple(cursor.execute(_UNBALANCED, [MAX_UNBALANCED]))
        few = in_period.batches <= MAX_BATCHES
        batches = tuple(cursor.execute(_BATCHES, span)) if few else ()
    return BalancePart(
        whole=summed(each for _, _, each in lines),
        in_period=in_period,
        days=days,
        batches=batches,
        unbalanced=unbalanced,
        ledger_rows=int(one_row(connection, "SELECT count(*) FROM login_ingest.ledger")[0]),
        table=TableSum(*one_row(connection, _TABLE)),
    )


def _keys(connection: psycopg.Connection) -> KeysPart:
    lines = tuple(line for name in KEYSET_NAMES for line in _keys_of(connection, name))
    links = connection.execute(_LINKS).fetchall()
    return KeysPart(lines, tuple(LinkCount(shown_code(name), *rest) for name, *rest in links))


def _keys_of(connection: psycopg.Connection, name: str) -> Iterator[ReportedKey]:
    registered, rows = registered_keys(connection, name), rows_by_key(connection, name)
    for key_id in dict.fromkeys((*registered, *rows)):
        key = registered.get(key_id)
        yield ReportedKey(
            keyset=name,
            key_id=key_id,
            first_used_at=key.first_used_at if key else None,
            retired_at=key.retired_at if key else None,
            rows=rows.get(key_id, 0),
        )


def _quarantine(connection: psycopg.Connection, period: Period) -> QuarantinePart:
    lines = connection.execute(_REASONS, [period.since, period.until]).fetchall()
    return QuarantinePart(
        tuple(
            ReasonCount(shown_code(name) if name else "", shown_code(reason), *counts)
            for name, reason, *counts in lines
        ),
        *one_row(connection, _ACCOUNT),
    )


def _erasures(connection: psycopg.Connection, period: Period) -> ErasuresPart:
    ever, unverified = one_row(connection, _COUNT_ERASURES)
    with connection.cursor(row_factory=class_row(ErasureRow)) as cursor:
        found = cursor.execute(_ERASURES, [period.since, period.until, MAX_ROWS]).fetchall()
    shown = (replace(each, ticket=shown_ticket(each.ticket)) for each in found)
    return ErasuresPart(ever, unverified, tuple(shown))


def _retention(connection: psycopg.Connection, days: RetentionDays) -> RetentionPart:
    oldest, overdue, last_expiry, oldest_day = one_row(connection, _RETENTION, days.quarantine)
    return RetentionPart(days.quarantine, days.runs, oldest, overdue, last_expiry, oldest_day)


def _requests(connection: psycopg.Connection, period: Period) -> RequestsPart:
    span = [period.since, period.until]
    ever, in_period = one_row(connection, _COUNT_REQUESTS, *span)
    with connection.cursor(row_factory=class_row(RequestRow)) as cursor:
        found = cursor.execute(_REQUESTS, [*span, MAX_ROWS]).fetchall()
    shown = (replace(each, ticket=shown_ticket(each.ticket)) for each in found)
    return RequestsPart(ever, in_period, tuple(shown))


def _with_reveals(
    requests: RequestsPart | Unreadable, audit: AuditSummary | Unreadable
) -> RequestsPart | Unreadable:
    if isinstance(requests, Unreadable) or isinstance(audit, Unreadable):
        return requests
    shown = (
        replace(each, reveals=audit.reveals.get(each.request_id, 0)) for each in requests.shown
    )
    return replace(requests, shown=tuple(shown))


_DAYS = """
SELECT (committed_at AT TIME ZONE 'UTC')::date,
       committed_at >= %s AND committed_at < %s AS is_of_period,
       count(*), sum(received)::bigint, sum(loaded)::bigint, sum(quarantined)::bigint,
       sum(already_known)::bigint, sum(ledger)::bigint, count(*) FILTER (WHERE NOT holds)
FROM login_ingest.batch_balance GROUP BY 1, 2 ORDER BY 1, 2
"""

_BATCHES = """
SELECT batch_id, run_id, committed_at, received, loaded, quarantined, already_known, ledger
FROM login_ingest.batch_balance WHERE committed_at >= %s AND committed_at < %s
ORDER BY committed_at, batch_id
"""

_UNBALANCED = """
SELECT batch_id, run_id, committed_at, received, loaded, quarantined, already_known, ledger
FROM login_ingest.batch_balance WHERE NOT holds ORDER BY batch_id DESC LIMIT %s
"""

_TABLE = """
SELECT login_rows,
       (SELECT coalesce(sum(loaded), 0)::bigint FROM login_ingest.batch),
       (SELECT coalesce(sum(replayed), 0)::bigint FROM login_ingest.replay),
       (SELECT coalesce(sum(logins), 0)::bigint FROM login_ingest.erasure WHERE kind = 'user'),
       without_ip, without_device_id, login_ingest.non_token_rows()
FROM login_ingest.login_counts()
"""

_LINKS = "SELECT field, tokens, digests FROM login_ingest.link_counts() ORDER BY 1"

_REASONS = """
SELECT field, reason, count(*),
       count(*) FILTER (WHERE quarantined_at >= %s AND quarantined_at < %s)
FROM login_ingest.quarantine GROUP BY 1, 2 ORDER BY 3 DESC, 2, 1
"""

_ACCOUNT = """
SELECT quarantined, replayed, discarded, expired, erased, waiting, holds
FROM login_ingest.quarantine_balance
"""

_COUNT_ERASURES = "SELECT count(*), count(*) FILTER (WHERE NOT verified) FROM login_ingest.erasure"

# Those that are not verified are shown whenever they were.
_ERASURES = """
SELECT erasure_id, at, actor AS person, kind, subjects, ticket, logins, links, requests,
       quarantined, unreadable AS unopened, remaining, finished_at, verified
FROM login_ingest.erasure WHERE at >= %s AND at < %s OR NOT verified ORDER BY at DESC LIMIT %s
"""

# A day of slack: the schedule runs once a night.
_RETENTION = """
SELECT (SELECT min(quarantined_at) FROM login_ingest.quarantine),
       (SELECT count(*) FROM login_ingest.quarantine
        WHERE quarantined_at < now() - make_interval(days => %s + 1)),
       (SELECT max(at) FROM login_ingest.discard WHERE action = 'expire'),
       (SELECT oldest_day FROM login_ingest.login_counts())
"""

_COUNT_REQUESTS = """
SELECT count(*), count(*) FILTER (WHERE requested_at >= %s AND requested_at < %s)
FROM login_ingest.unmask_request
"""

# How many tokens, and never which.
_REQUESTS = """
SELECT request_id, requested_at, requester, ticket, cardinality(tokens) AS tokens, approver,
       expires_at,
       CASE WHEN withdrawn_at IS NOT NULL THEN 'withdrawn'
            WHEN cardinality(tokens) = 0 THEN 'erased' WHEN expires_at IS NULL THEN 'waiting'
            WHEN expires_at > now() THEN 'approved' ELSE 'expired' END AS state
FROM login_ingest.unmask_request WHERE requested_at >= %s AND requested_at < %s
ORDER BY request_id DESC LIMIT %s
"""
