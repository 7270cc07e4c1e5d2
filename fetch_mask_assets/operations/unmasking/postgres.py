"""Requests to unmask, and finding rows: each decided or recorded in the database first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from fetch_mask_assets.audit.postgres import RECORDING_SESSION
from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.masking.fields import CLEAR_COLUMNS, MaskedField
from fetch_mask_assets.operations.unmasking.requests import UnmaskRequest, Verdict, refusal
from fetch_mask_assets.postgres.connection import connect, one_row, translate_errors


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row of `user_logins` by its clear columns, and the token that found it; days as ISO."""

    token: str
    columns: Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class Found:
    """How many rows each token has, and the newest of them."""

    counts: dict[str, int]
    rows: tuple[FoundRow, ...]


@dataclass(frozen=True, slots=True)
class Unmasking:
    """The way back of a warehouse, by its libpq URL; each verb is a transaction of its own.

    Who acts is the database's `session_user`. What a verb returns was committed, record and all.
    """

    url: str = field(repr=False)

    def request(self, tokens: Sequence[str], reason: str, ticket: str, limit: int) -> int:
        """Asks for originals; the number of the request.

        Raises:
            UnmaskRefusedError: refused; the refusal is recorded.
            DatabaseError: nothing was asked.
        """
        with self._session("request") as connection:
            answer = one_row(connection, _REQUEST, list(tokens), reason, ticket, limit)
        _refuse(answer[0])
        return int(answer[1])

    def approve(self, request_id: int, minutes: int) -> datetime:
        """Approves somebody else's request; until when, by the database's clock.

        Raises:
            UnmaskRefusedError: refused; the refusal is recorded.
            DatabaseError: nothing was approved.
        """
        with self._session("approve") as connection:
            verdict, until = one_row(connection, _APPROVE, request_id, minutes)
        _refuse(verdict)
        approved_until: datetime = until
        return approved_until

    def reveal(self, request_id: int) -> tuple[str, ...]:
        """The tokens that the caller may unmask now; the reveal is recorded and committed.

        Raises:
            UnmaskRefusedError: refused; the refusal is recorded.
            DatabaseError: nothing may be unmasked, whether or not it was recorded.
        """
        with self._session("record the reveal") as connection:
            verdict, tokens = one_row(connection, _REVEAL, request_id)
        _refuse(verdict)
        return tuple(tokens)

    def withdraw(self, request_id: int) -> tuple[str, datetime]:
        """Closes a request for good, approved or not; by whom and when, the first time.

        Raises:
            UnmaskRefusedError: there is none; the refusal is recorded.
            DatabaseError: nothing was withdrawn.
        """
        with self._session("withdraw") as connection:
            verdict, by_person, since = one_row(connection, _WITHDRAW, request_id)
        _refuse(verdict)
        return str(by_person), since

    def requests(self) -> tuple[tuple[UnmaskRequest, ...], datetime]:
        """All requests, newest first, and the time by the database's clock.

        Raises:
            DatabaseError: they cannot be read.
        """
        with self._session("read the requests") as connection:
            rows = connection.execute(_LIST).fetchall()
            (now,) = one_row(connection, "SELECT clock_timestamp()")
        return tuple(UnmaskRequest(*row) for row in rows), now

    def first_column(self, statement: str, limit: int) -> tuple[str, ...]:
        """The distinct texts in the first column of a SELECT; stops at one more than the limit.

        Args:
            statement: the caller's own, run with the caller's rights in a read-only transaction.
            limit: in texts; nulls are left out.

        Raises:
            DatabaseError: the statement was refused, or its first column is no text.
        """
        texts: dict[str, None] = {}
        with self._session("run the query") as connection:
            connection.read_only = True
            with connection.cursor(name="tokens") as cursor:
                cursor.execute(statement.encode())
                for value in (value for row in cursor for value in row[:1] if value is not None):
                    _refuse_non_text(value)
                    texts[value] = None
                    if len(texts) > limit:
                        break
        return tuple(texts)

    def find(self, masked_field: MaskedField, tokens: Sequence[str], most_rows: int) -> Found:
        """The rows that hold these tokens; the look-up is recorded and committed.

        Raises:
            UnmaskRefusedError: refused; the refusal is recorded.
            DatabaseError: nothing may be shown, whether or not it was recorded.
        """
        values = (masked_field.name, list(tokens), most_rows)
        with self._session("find rows") as connection:
            verdict, counts, rows = one_row(connection, _FIND, *values)
        _refuse(verdict)
        return Found(dict.fromkeys(tokens, 0) | counts, tuple(map(_found_row, rows)))

    @contextmanager
    def _session(self, verb: str) -> Iterator[psycopg.Connection]:
        with translate_errors(verb), connect(self.url, options=RECORDING_SESSION) as connection:
            yield connection


def _found_row(line: Mapping[str, Any]) -> FoundRow:
    return FoundRow(line["token"], {name: line[name] for name in CLEAR_COLUMNS})


def _refuse_non_text(value: object) -> None:
    if not isinstance(value, str):
        raise DatabaseError("the query's first column is no text: it must give tokens.")


def _refuse(verdict: str) -> None:
    error = refusal(Verdict(verdict))
    if error:
        raise error


_REQUEST = """
SELECT verdict, request FROM login_ingest.request_unmask(%s::text[], %s, %s, %s::integer)
"""

_APPROVE = """
SELECT verdict, approved_until FROM login_ingest.approve_unmask(%s::bigint, %s::integer)
"""

_REVEAL = "SELECT verdict, tokens FROM login_ingest.reveal_unmask(%s::bigint)"

_WITHDRAW = """
SELECT verdict, by_person, since FROM login_ingest.withdraw_unmask(%s::bigint)
"""

_LIST = """
SELECT request_id, requested_at, requester, reason, ticket, tokens, approver, approved_at,
       expires_at, withdrawn_by, withdrawn_at
FROM login_ingest.unmask_request ORDER BY request_id DESC
"""

_FIND = """
SELECT verdict, counts, newest FROM login_ingest.find_rows(%s, %s::text[], %s::integer)
"""
