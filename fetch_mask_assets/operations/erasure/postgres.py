"""Erasure: of a value's tokens, or of a user, in every place that the database has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from fetch_mask_assets.errors import DatabaseError, TokenError
from fetch_mask_assets.keys.keyset import Keyring, Sealer
from fetch_mask_assets.keys.postgres import rows_by_key
from fetch_mask_assets.operations.erasure.subjects import USER, Subjects
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets.postgres.connection import (
    TransientDatabaseError,
    connect,
    one_row,
    translate_errors,
)

ROWS_AT_ONCE = 5_000
"""Rows of one transaction, at most."""

ROUNDS = 3
"""How often erasing starts again where the check still finds something, which is then new."""

_MESSAGES_AT_ONCE = 1_000
_ATTEMPTS = 4

# Looking through a whole table takes as long as it takes; only the waiting is bounded.
_SESSION = (
    "-c synchronous_commit=on -c lock_timeout=30s -c statement_timeout=0"
    " -c idle_in_transaction_session_timeout=300s"
)

_repeated = retry(
    retry=retry_if_exception_type(TransientDatabaseError),
    stop=stop_after_attempt(_ATTEMPTS),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    reraise=True,
)


@dataclass(frozen=True, slots=True)
class ErasureOrder:
    """What is to be erased, and on whose behalf; `reason` and `ticket` are kept for good."""

    erasure_id: str
    subjects: Subjects
    reason: str
    ticket: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was erased, in numbers, and nothing that identifies it.

    Counted by the database: `logins` are rows of user_logins, without their token or deleted;
    `matches` are notes of an upgrade from MD5; `requests` are requests to unmask that lost tokens;
    `quarantined` are messages that were deleted. `remaining` is what it found afterwards of all
    that, `uncovered` are rows under keys of which no token was named for each subject, and
    `sealed` are the messages in the quarantine at the end.

    Said by the command, which alone opens sealed bodies and holds keysets: `held` of those
    messages still hold a subject, and `unopened` things could not be looked into, rows under
    unknown keys among them. None in certificates that are older than the number.
    """

    erasure_id: str
    at: datetime
    person: str
    kind: str
    subjects: int
    reason: str
    ticket: str
    logins: int
    links: int
    matches: int
    requests: int
    quarantined: int
    remaining: int | None
    uncovered: int | None
    sealed: int | None
    held: int | None
    unopened: int
    finished_at: datetime | None
    verified: bool


SELF_REPORTED = ("held", "unopened")
"""The numbers of a certificate that the database cannot count itself."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look into the quarantine found; bodies that do not open are only counted."""

    message_ids: list[str]
    unopened: int
    looked_into: int


@dataclass(frozen=True, slots=True)
class Erasures:
    """The erasures of a warehouse, by its libpq URL; each step is a transaction of its own."""

    url: str = field(repr=False)

    def erase(
        self, order: ErasureOrder, keyring: Keyring, say: Callable[[str], None]
    ) -> Certificate:
        """Erases, looks whether anything is left, and gives the certificate.

        Killed at any point, what is done stays done and counted; repeating it does the rest.

        Raises:
            DatabaseError: the certificate stays unfinished; repeat it.
        """
        self._call("begin an erasure", _BEGIN, *_beginning(order))
        keys: list[str] = []
        left = _Found([], 0, 0)
        for number in range(1, ROUNDS + 1):
            # An earlier round has deleted links, and what they led to must still be looked for.
            keys = sorted({*keys, *self._keys(order.subjects, keyring)})
            say(f"Round {number}: rows of user_logins")
            self._erase_logins(order, keys)
            say(f"Round {number}: quarantined messages")
            self._erase_quarantined(order, self._found(order.subjects, keyring.sealer).message_ids)
            self._erase_kept_tokens(order, keys)
            say(f"Round {number}: is anything left?")
            left = self._found(order.subjects, keyring.sealer)
            if not self._remains(order, keys) + len(left.message_ids):
                break
        unopened = left.unopened + self._foreign_rows(order.subjects, keyring)
        said = (left.looked_into, len(left.message_ids), unopened)
        self._call("finish an erasure", _FINISH, order.erasure_id, keys, *said)
        return self.certificate(order.erasure_id)

    @_repeated
    def certificate(self, erasure_id: str) -> Certificate:
        """The certificate of an erasure.

        Raises:
            DatabaseError: it cannot be read.
        """
        with (
            self._session("read a certificate") as connection,
            connection.cursor(row_factory=class_row(Certificate)) as cursor,
        ):
            found = cursor.execute(_READ, [erasure_id]).fetchone()
        if found is None:
            raise DatabaseError("the certificate of this erasure is not there.")
        return found

    def _keys(self, subjects: Subjects, keyring: Keyring) -> list[str]:
        """What the rows are found by: user ids, or tokens and what they are linked to."""
        if subjects.kind == USER:
            return list(subjects.values)
        given = list(subjects.tokens(keyring))
        return list(self._call("read links", _TOKENS, subjects.kind, given))

    def _erase_logins(self, order: ErasureOrder, keys: list[str]) -> None:
        kind = order.subjects.kind
        while True:
            if kind == USER:
                values = (order.erasure_id, keys, ROWS_AT_ONCE)
                gone = self._call("delete rows", _ERASE_USERS, *values)
            else:
                masked = (order.erasure_id, kind, keys, ROWS_AT_ONCE)
                gone = self._call("erase tokens", _ERASE_TOKENS, *masked)
            if not gone:
                return

    def _erase_quarantined(self, order: ErasureOrder, message_ids: list[str]) -> None:
        for start in range(0, len(message_ids), _MESSAGES_AT_ONCE):
            part = message_ids[start : start + _MESSAGES_AT_ONCE]
            self._call("delete quarantined messages", _ERASE_MESSAGES, order.erasure_id, part)

    def _erase_kept_tokens(self, order: ErasureOrder, keys: list[str]) -> None:
        # Links last: until the rows are done, only they lead to tokens of keys that are gone.
        if order.subjects.kind == USER:
            return
        self._call("take tokens out of requests", _ERASE_REQUESTS, order.erasure_id, keys)
        kind = order.subjects.kind
        self._call("forget what an upgrade found", _ERASE_MATCHES, order.erasure_id, kind, keys)
        self._call("delete links", _ERASE_LINKS, order.erasure_id, kind, keys)

    @_repeated
    def _found(self, subjects: Subjects, sealer: Sealer) -> _Found:
        holds = subjects.holds()
        message_ids: list[str] = []
        unopened = looked_into = 0
        for message in Quarantine(self.url).messages():
            looked_into += 1
            try:
                body = sealer.open(message.sealed_body, message.message_id)
            except TokenError:
                unopened += 1
                continue
            if holds(body):
                message_ids.append(message.message_id)
        return _Found(message_ids, unopened, looked_into)

    @_repeated
    def _foreign_rows(self, subjects: Subjects, keyring: Keyring) -> int:
        """Rows under keys that the keyset has not: nobody can say whose they are."""
        known = {each.field.name: each.all_key_ids for each in keyring.maskers}
        if subjects.kind not in known:
            return 0
        with self._session("count rows by key") as connection:
            rows = rows_by_key(connection, subjects.kind)
        return sum(count for key_id, count in rows.items() if key_id not in known[subjects.kind])

    def _remains(self, order: ErasureOrder, keys: list[str]) -> int:
        return int(self._call("look for what is left", _REMAINS, order.subjects.kind, keys))

    @_repeated
    def _call(self, verb: str, statement: LiteralString, *values: object) -> Any:  # noqa: ANN401 (whatever the function returns)
        with self._session(verb) as connection:
            return one_row(connection, statement, *values)[0]

    @contextmanager
    def _session(self, verb: str) -> Iterator[psycopg.Connection]:
        with translate_errors(verb), connect(self.url, options=_SESSION) as connection:
            yield connection


def _beginning(order: ErasureOrder) -> tuple[object, ...]:
    subjects = order.subjects
    counts = (subjects.kind, len(subjects.values))
    return (order.erasure_id, *counts, order.reason, order.ticket)


_BEGIN = "SELECT login_ingest.begin_erasure(%s, %s, %s, %s, %s)"

_TOKENS = "SELECT login_ingest.linked_tokens(%s, %s::text[])"

_ERASE_TOKENS = "SELECT login_ingest.erase_tokens(%s, %s, %s::text[], %s)"

_ERASE_USERS = "SELECT login_ingest.erase_users(%s, %s::text[], %s)"

_ERASE_MESSAGES = "SELECT login_ingest.erase_quarantined(%s, %s::text[])"

_ERASE_REQUESTS = "SELECT login_ingest.erase_requests(%s, %s::text[])"

_ERASE_LINKS = "SELECT login_ingest.erase_links(%s, %s, %s::text[])"

_ERASE_MATCHES = "SELECT login_ingest.erase_matches(%s, %s, %s::text[])"

_REMAINS = "SELECT login_ingest.erasure_remains(%s, %s::text[])"

_FINISH = "SELECT login_ingest.finish_erasure(%s, %s::text[], %s, %s, %s)"

_READ = """
SELECT erasure_id, at, person, kind, subjects, reason, ticket, logins, links, matches,
       requests, quarantined, remaining, uncovered, sealed, held, unopened, finished_at, verified
FROM login_ingest.erasure WHERE erasure_id = %s
"""
