"""Erasure in the database: of the tokens of values, or of users, in every table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg.rows import class_row

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.masker import Sealer
from fetch_mask_assets.keys.postgres import rows_by_key
from fetch_mask_assets.operations.erasure.body_search import QuarantineMatches, search_quarantine
from fetch_mask_assets.operations.erasure.certificate import Certificate
from fetch_mask_assets.operations.erasure.order import ErasureOrder
from fetch_mask_assets.operations.erasure.subjects import USER, Subjects
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets.postgres.sessions import LONG_RECORD, one_row, open_session, retry_transient

ROWS_AT_ONCE = 5_000
"""Maximum number of rows in one transaction."""

MAX_ROUNDS = 3
"""Maximum number of times that an erasure is repeated for subjects that arrive meanwhile."""

_MESSAGES_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Erasures:
    """The erasures of a warehouse, by its libpq URL; each step is one transaction."""

    url: str = field(repr=False)

    def erase(
        self, order: ErasureOrder, keyring: Keyring, on_progress: Callable[[str], None]
    ) -> Certificate:
        """Erase the subjects, search for what is left, and return the certificate.

        Repeats the erasure for subjects that arrive meanwhile, at most `MAX_ROUNDS` times. If the
        process is killed, completed steps stay committed and counted; a new order does the rest.

        Raises:
            DatabaseError: the certificate stays unfinished; give a new order.
        """
        self._call("begin an erasure", _BEGIN, *_begin_parameters(order))
        keys: list[str] = []
        matches = QuarantineMatches([], 0, 0)
        for number in range(1, MAX_ROUNDS + 1):
            # An earlier round deleted links; the tokens that they led to are still searched for.
            keys = sorted({*keys, *self._keys(order.subjects, keyring)})
            on_progress(f"Round {number}: rows of user_logins")
            self._erase_logins(order, keys)
            on_progress(f"Round {number}: quarantined messages")
            self._erase_quarantined(order, keyring.sealer)
            self._erase_kept_tokens(order, keys)
            on_progress(f"Round {number}: checking what is left")
            matches = self._search_quarantine(order.subjects, keyring.sealer)
            if not self._remaining(order, keys) + len(matches.message_ids):
                break
        self._finish(order, keyring, keys, matches)
        return self.certificate(order.erasure_id)

    @retry_transient()
    def certificate(self, erasure_id: str) -> Certificate:
        """The certificate of an erasure.

        Raises:
            DatabaseError: it cannot be read.
        """
        with (
            open_session(self.url, LONG_RECORD, "read a certificate") as connection,
            connection.cursor(row_factory=class_row(Certificate)) as cursor,
        ):
            found = cursor.execute(_READ, [erasure_id]).fetchone()
        if found is None:
            raise DatabaseError("no certificate has this erasure id.")
        return found

    def _finish(
        self, order: ErasureOrder, keyring: Keyring, keys: list[str], matches: QuarantineMatches
    ) -> None:
        unreadable_rows = self._rows_under_unknown_keys(order.subjects, keyring)
        messages = (matches.examined, len(matches.message_ids), matches.unreadable)
        self._call("finish an erasure", _FINISH, order.erasure_id, keys, *messages, unreadable_rows)

    def _keys(self, subjects: Subjects, keyring: Keyring) -> list[str]:
        """The keys of the rows: user ids, or tokens with the tokens linked to them."""
        if subjects.kind == USER:
            return list(subjects.values)
        tokens = list(subjects.tokens(keyring))
        return list(self._call("read links", _TOKENS, subjects.kind, tokens))

    def _erase_logins(self, order: ErasureOrder, keys: list[str]) -> None:
        while self._erase_some_logins(order, keys):
            pass

    def _erase_some_logins(self, order: ErasureOrder, keys: list[str]) -> int:
        kind = order.subjects.kind
        if kind == USER:
            values = (order.erasure_id, keys, ROWS_AT_ONCE)
            return int(self._call("delete rows", _ERASE_USERS, *values))
        masked = (order.erasure_id, kind, keys, ROWS_AT_ONCE)
        return int(self._call("erase tokens", _ERASE_TOKENS, *masked))

    def _erase_quarantined(self, order: ErasureOrder, sealer: Sealer) -> None:
        message_ids = self._search_quarantine(order.subjects, sealer).message_ids
        for start in range(0, len(message_ids), _MESSAGES_AT_ONCE):
            values = (order.erasure_id, message_ids[start : start + _MESSAGES_AT_ONCE])
            self._call("delete quarantined messages", _ERASE_MESSAGES, *values)

    def _erase_kept_tokens(self, order: ErasureOrder, keys: list[str]) -> None:
        # Links last: only they lead to the tokens of rows under keys that the keyset does not have.
        if order.subjects.kind == USER:
            return
        self._call("remove tokens from requests", _ERASE_REQUESTS, order.erasure_id, keys)
        kind = order.subjects.kind
        self._call("delete MD5 matches", _ERASE_MATCHES, order.erasure_id, kind, keys)
        self._call("delete links", _ERASE_LINKS, order.erasure_id, kind, keys)

    @retry_transient()
    def _search_quarantine(self, subjects: Subjects, sealer: Sealer) -> QuarantineMatches:
        return search_quarantine(Quarantine(self.url).messages(), subjects.matcher(), sealer)

    @retry_transient()
    def _rows_under_unknown_keys(self, subjects: Subjects, keyring: Keyring) -> int:
        """Count rows under keys that the keyset does not have: their values are unknown."""
        key_ids = {each.field.name: each.all_key_ids for each in keyring.maskers}
        if subjects.kind not in key_ids:
            return 0
        with open_session(self.url, LONG_RECORD, "count rows by key") as connection:
            rows = rows_by_key(connection, subjects.kind)
        known = key_ids[subjects.kind]
        return sum(count for key_id, count in rows.items() if key_id not in known)

    def _remaining(self, order: ErasureOrder, keys: list[str]) -> int:
        return int(self._call("check what is left", _REMAINS, order.subjects.kind, keys))

    @retry_transient()
    def _call(self, action: str, statement: LiteralString, *values: object) -> Any:  # noqa: ANN401 (the result of the function)
        with open_session(self.url, LONG_RECORD, action) as connection:
            return one_row(connection, statement, *values)[0]


def _begin_parameters(order: ErasureOrder) -> tuple[object, ...]:
    subjects = order.subjects
    kind, count = subjects.kind, len(subjects.values)
    return (order.erasure_id, kind, count, order.reason, order.ticket)


_BEGIN = "SELECT login_ingest.begin_erasure(%s, %s, %s, %s, %s)"

_TOKENS = "SELECT login_ingest.linked_tokens(%s, %s::text[])"

_ERASE_TOKENS = "SELECT login_ingest.erase_tokens(%s, %s, %s::text[], %s)"

_ERASE_USERS = "SELECT login_ingest.erase_users(%s, %s::text[], %s)"

_ERASE_MESSAGES = "SELECT login_ingest.erase_quarantined(%s, %s::text[])"

_ERASE_REQUESTS = "SELECT login_ingest.erase_requests(%s, %s::text[])"

_ERASE_LINKS = "SELECT login_ingest.erase_links(%s, %s, %s::text[])"

_ERASE_MATCHES = "SELECT login_ingest.erase_matches(%s, %s, %s::text[])"

_REMAINS = "SELECT login_ingest.count_remaining(%s, %s::text[])"

_FINISH = "SELECT login_ingest.finish_erasure(%s, %s::text[], %s, %s, %s, %s)"

_READ = """
SELECT erasure_id, started_at, finished_at, actor, kind, subjects, reason, ticket, logins, links,
       md5_matches, unmask_requests, messages, remaining_rows, remaining_messages,
       unsearched_rows, unreadable_rows, unreadable_messages, waiting_messages, verified
FROM login_ingest.erasure WHERE erasure_id = %s
"""
