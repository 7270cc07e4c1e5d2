"""Requests to unmask, and finding rows: the database decides and records each call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.masking.fields import CLEAR_COLUMNS, MaskedField
from fetch_mask_assets.operations.unmasking.find import FindResult, FoundRow
from fetch_mask_assets.operations.unmasking.requests import UnmaskRequest, Withdrawal
from fetch_mask_assets.operations.unmasking.verdicts import Verdict, refusal
from fetch_mask_assets.postgres.sessions import RECORD, one_row, open_session


@dataclass(frozen=True, slots=True)
class Unmasking:
    """Unmasking in a warehouse, by its libpq URL; each method is one transaction.

    The actor is the database's `session_user`. A method returns after its audit record is
    committed.
    """

    url: str = field(repr=False)

    def request(self, tokens: Sequence[str], reason: str, ticket: str, limit: int) -> int:
        """Request the originals of tokens; returns the id of the request.

        Raises:
            UnmaskRefusedError: refused; the refusal is recorded.
            DatabaseError: nothing was requested.
        """
        with open_session(self.url, RECORD, "request") as connection:
            verdict, request_id = one_row(connection, _REQUEST, list(tokens), reason, ticket, limit)
        _raise_refusal(verdict)
        return int(request_id)

    def approve(self, request_id: int, minutes: int) -> datetime:
        """Approve a request of another actor; returns its expiry, by the database's clock.

        Raises:
            UnmaskRefusedError: refused; the refusal is recorded.
            DatabaseError: nothing was approved.
        """
        with open_session(self.url, RECORD, "approve") as connection:
            verdict, expires_at = one_row(connection, _APPROVE, request_id, minutes)
        _raise_refusal(verdict)
        approved_until: datetime = expires_at
        return approved_until

    def reveal(self, request_id: int) -> tuple[str, ...]:
        """Record a reveal; returns the tokens that the caller may unmask now.

        Raises:
            UnmaskRefusedError: refused; the refusal is recorded.
            DatabaseError: nothing may be unmasked, even if the reveal was recorded.
        """
        with open_session(self.url, RECORD, "record the reveal") as connection:
            verdict, tokens = one_row(connection, _REVEAL, request_id)
        _raise_refusal(verdict)
        return tuple(tokens)

    def withdraw(self, request_id: int) -> Withdrawal:
        """Close a request permanently, approved or not; returns its first withdrawal.

        Raises:
            UnmaskRefusedError: no such request; the refusal is recorded.
            DatabaseError: nothing was withdrawn.
        """
        with open_session(self.url, RECORD, "withdraw") as connection:
            verdict, *withdrawal = one_row(connection, _WITHDRAW, request_id)
        _raise_refusal(verdict)
        return Withdrawal(*withdrawal)

    def requests(self) -> tuple[tuple[UnmaskRequest, ...], datetime]:
        """All requests, newest first, and the current time of the database.

        Raises:
            DatabaseError: they cannot be read.
        """
        with open_session(self.url, RECORD, "read the requests") as connection:
            rows = connection.execute(_LIST).fetchall()
            (now,) = one_row(connection, "SELECT clock_timestamp()")
        return tuple(UnmaskRequest(*row) for row in rows), now

    def first_column(self, statement: str, limit: int) -> tuple[str, ...]:
        """The distinct texts in the first column of a SELECT, at most one more than the limit.

        Args:
            statement: runs with the caller's rights in a read-only transaction.
            limit: in texts; nulls are left out.

        Raises:
            DatabaseError: the statement was refused, or its first column is not text.
        """
        with open_session(self.url, RECORD, "run the query") as connection:
            connection.read_only = True
            with connection.cursor(name="tokens") as cursor:
                cursor.execute(statement.encode())
                return tuple(islice(_distinct_texts(cursor), limit + 1))

    def find(self, masked_field: MaskedField, tokens: Sequence[str], max_rows: int) -> FindResult:
        """Record a find; returns the number of rows of each token, and the newest rows.

        Raises:
            UnmaskRefusedError: refused; the refusal is recorded.
            DatabaseError: nothing may be shown, even if the find was recorded.
        """
        values = (masked_field.name, list(tokens), max_rows)
        with open_session(self.url, RECORD, "find rows") as connection:
            verdict, counts, rows = one_row(connection, _FIND, *values)
        _raise_refusal(verdict)
        return FindResult(dict.fromkeys(tokens, 0) | counts, tuple(map(_found_row, rows)))


def _found_row(row: Mapping[str, Any]) -> FoundRow:
    return FoundRow(row["token"], {name: row[name] for name in CLEAR_COLUMNS})


def _distinct_texts(rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    seen: set[str] = set()
    for value in (value for row in rows for value in row[:1] if value is not None):
        _refuse_non_text(value)
        if value not in seen:
            seen.add(value)
            yield value


def _refuse_non_text(value: object) -> None:
    if not isinstance(value, str):
        raise DatabaseError("the first column of the query is not text. It must return tokens.")


def _raise_refusal(verdict: str) -> None:
    error = refusal(Verdict(verdict))
    if error:
        raise error


_REQUEST = """
SELECT verdict, request FROM login_ingest.create_unmask_request(%s::text[], %s, %s, %s::integer)
"""

_APPROVE = """
SELECT verdict, approved_until FROM login_ingest.approve_unmask_request(%s::bigint, %s::integer)
"""

_REVEAL = "SELECT verdict, tokens FROM login_ingest.reveal_unmask_request(%s::bigint)"

_WITHDRAW = """
SELECT verdict, withdrawn_by, withdrawn_at FROM login_ingest.withdraw_unmask_request(%s::bigint)
"""

_LIST = """
SELECT request_id, requested_at, requester, reason, ticket, tokens, approver, approved_at,
       expires_at, withdrawn_by, withdrawn_at
FROM login_ingest.unmask_request ORDER BY request_id DESC
"""

_FIND = """
SELECT verdict, counts, newest FROM login_ingest.find_rows(%s, %s::text[], %s::integer)
"""
