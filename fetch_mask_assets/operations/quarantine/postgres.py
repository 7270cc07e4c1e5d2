"""The quarantine in the database: read, replay, discard and expire its messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from uuid import uuid4

import psycopg

from fetch_mask_assets.audit.postgres import record
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.masker import Sealer
from fetch_mask_assets.keys.postgres import lock_keys, write_links
from fetch_mask_assets.operations.quarantine.messages import (
    ExpiryRefusedError,
    MessageFilter,
    QuarantineBalance,
    QuarantinedMessage,
)
from fetch_mask_assets.operations.quarantine.profiles import (
    ProfileCount,
    count_profiles,
    profile_of,
)
from fetch_mask_assets.operations.quarantine.replay import (
    ReplayBatch,
    ReplayResult,
    SealedMessage,
    mask_quarantined,
)
from fetch_mask_assets.postgres.sessions import RECORD, one_row, open_session, retry_transient

MESSAGES_AT_ONCE = 200
"""Maximum number of messages in one transaction of a replay."""

# A sealed body can be a megabyte.
_BODIES_AT_ONCE = 50
_ROWS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The quarantine of a warehouse, by its libpq URL; each method opens its own connections."""

    url: str = dataclass_field(repr=False)

    def profiles(
        self, sealer: Sealer, on_progress: Callable[[int], None]
    ) -> tuple[ProfileCount, ...]:
        """Count all messages by reason, field and profile; recorded and committed.

        Args:
            sealer: opens the bodies in memory.
            on_progress: called with the number of messages since the last call.

        Raises:
            DatabaseError: they cannot be read, or the audit cannot be written.
        """
        messages = _report_each(self.messages(), on_progress)
        counts = count_profiles(profile_of(message, sealer) for message in messages)
        detail = {"messages": sum(each.messages for each in counts), "kinds": len(counts)}
        self._record("quarantine.list", detail)
        return counts

    def messages(self) -> Iterator[QuarantinedMessage]:
        """Every message, read in pages of fifty.

        Raises:
            DatabaseError: they cannot be read.
        """
        with (
            open_session(self.url, RECORD, "read the quarantine") as connection,
            connection.cursor(name="quarantine") as cursor,
        ):
            cursor.itersize = _BODIES_AT_ONCE
            for row in cursor.execute(_READ):
                yield QuarantinedMessage(*row)

    def show(self, message_id: str) -> QuarantinedMessage | None:
        """One message, or None if it is not quarantined; recorded and committed first.

        Raises:
            DatabaseError: it cannot be read, or the audit cannot be written.
        """
        with open_session(self.url, RECORD, "show a quarantined message") as connection:
            row = connection.execute(_READ_ONE, [message_id]).fetchone()
            if row is None:
                return None
            record(connection, "quarantine.show", {"message_id": message_id})
            connection.commit()
            return QuarantinedMessage(*row)

    def count(self, selected: MessageFilter) -> int:
        """The number of selected messages.

        Raises:
            DatabaseError: they cannot be counted.
        """
        with open_session(self.url, RECORD, "count quarantined messages") as connection:
            return int(one_row(connection, _COUNT, *selected.parameters)[0])

    def balance(self) -> QuarantineBalance:
        """The balance of all messages that were ever quarantined.

        Raises:
            DatabaseError: it cannot be read.
        """
        with open_session(self.url, RECORD, "read the balance of the quarantine") as connection:
            return QuarantineBalance(*one_row(connection, _READ_BALANCE))

    def replay_all(
        self, selected: MessageFilter, keyring: Keyring, on_progress: Callable[[int], None]
    ) -> ReplayResult:
        """Replay the selected messages; returns the recorded totals of this replay.

        Raises:
            RulesBrokenError: masked messages break a rule; earlier transactions are committed.
            DatabaseError: a transaction failed; earlier transactions are committed.
        """
        replay_id, unreadable = str(uuid4()), 0
        for step in self.replay(replay_id, selected, keyring):
            unreadable += step.unreadable
            on_progress(step.messages)
        # The record counts a commit whose answer was lost; the steps do not.
        return replace(self.replay_result(replay_id), unreadable=unreadable)

    def replay(
        self, replay_id: str, selected: MessageFilter, keyring: Keyring
    ) -> Iterator[ReplayResult]:
        """Replay the selected messages, in transactions of bounded size.

        A login becomes a row and leaves the quarantine. A message that is still rejected stays,
        with its current reason. Messages that another replay has locked are left to it.

        Yields:
            The outcome of each transaction, once it is committed.

        Raises:
            RulesBrokenError: masked messages break a rule; earlier transactions are committed.
            DatabaseError: a transaction failed; earlier transactions are committed.
        """
        after = ""
        while True:
            step = self._replay_step(replay_id, selected, keyring, after)
            if step is None:
                return
            after, result = step
            yield result

    @retry_transient()
    def replay_result(self, replay_id: str) -> ReplayResult:
        """The recorded totals of a replay; unreadable messages are not counted apart.

        Raises:
            DatabaseError: it cannot be read.
        """
        with open_session(self.url, RECORD, "read a replay") as connection:
            row = connection.execute(_READ_REPLAY, [replay_id]).fetchone()
        return ReplayResult() if row is None else ReplayResult(*row)

    def discard(self, deletion_id: str, selected: MessageFilter, reason: str) -> Iterator[int]:
        """Delete messages permanently, in transactions of bounded size.

        Yields:
            The number of messages of each transaction, once it is committed.

        Raises:
            DatabaseError: a transaction failed; earlier transactions are committed.
        """
        while deleted := self._discard_step(deletion_id, selected, reason):
            yield deleted

    def expire(self, keep_days: int) -> Iterator[int]:
        """Delete messages that were quarantined earlier, in transactions of bounded size.

        Yields:
            The number of messages of each transaction, once it is committed.

        Raises:
            ExpiryRefusedError: fewer days than the database's policy; the refusal is recorded.
            DatabaseError: a transaction failed; earlier transactions are committed.
        """
        while deleted := self._expire_step(keep_days):
            yield deleted

    @retry_transient()
    def _replay_step(
        self, replay_id: str, selected: MessageFilter, keyring: Keyring, after: str
    ) -> tuple[str, ReplayResult] | None:
        with open_session(self.url, RECORD, "replay quarantined messages") as connection:
            values = [after, *selected.parameters, MESSAGES_AT_ONCE]
            rows = connection.execute(_TAKE, values).fetchall()
            messages = [SealedMessage(*row) for row in rows]
            if not messages:
                return None
            batch = mask_quarantined(messages, keyring)
            return messages[-1].message_id, _write(connection, replay_id, batch)

    @retry_transient()
    def _discard_step(self, deletion_id: str, selected: MessageFilter, reason: str) -> int:
        with open_session(self.url, RECORD, "discard quarantined messages") as connection:
            values = [deletion_id, *selected.parameters, reason, _ROWS_AT_ONCE]
            return int(one_row(connection, _DISCARD, *values)[0])

    @retry_transient()
    def _expire_step(self, keep_days: int) -> int:
        with open_session(self.url, RECORD, "delete old quarantined messages") as connection:
            verdict, deleted, min_days = one_row(connection, _EXPIRE, keep_days, _ROWS_AT_ONCE)
        if verdict != "expired":
            raise ExpiryRefusedError(
                f"refused, and the refusal is recorded: quarantined messages must be kept for at"
                f" least {min_days} days, and {keep_days} were requested. Raise"
                " LOGIN_QUARANTINE_RETENTION_DAYS, or let the owner of"
                " login_ingest.quarantine_policy lower min_keep_days."
            )
        return int(deleted)

    def _record(self, action: str, detail: Mapping[str, object]) -> None:
        with open_session(self.url, RECORD, "record") as connection:
            record(connection, action, detail)


def _report_each(
    messages: Iterable[QuarantinedMessage], on_progress: Callable[[int], None]
) -> Iterator[QuarantinedMessage]:
    for message in messages:
        yield message
        on_progress(1)


def _write(connection: psycopg.Connection, replay_id: str, batch: ReplayBatch) -> ReplayResult:
    # Keys before links, and links before the audit: every writer locks them in this order.
    lock_keys(connection, batch.logins)
    write_links(connection, batch.links)
    values = (replay_id, batch.logins_json(), batch.rejected_json(), batch.unreadable)
    replayed, still_rejected = one_row(connection, _REPLAY, *values)
    return ReplayResult(int(replayed), int(still_rejected), batch.unreadable)


_READ = """
SELECT message_id, reason, field, sent_at, quarantined_at, sealed_body
FROM login_ingest.quarantine
"""

_READ_ONE = """
SELECT message_id, reason, field, sent_at, quarantined_at, sealed_body
FROM login_ingest.quarantine WHERE message_id = %s
"""

_COUNT = """
SELECT count(*)
FROM login_ingest.quarantine, (VALUES (%s::text[], %s::text)) AS selected (message_ids, only_reason)
WHERE (message_ids IS NULL OR message_id = ANY (message_ids))
  AND (only_reason IS NULL OR reason = only_reason)
"""

_READ_BALANCE = """
SELECT quarantined, replayed, discarded, expired, erased, waiting, is_balanced
FROM login_ingest.quarantine_balance
"""

_TAKE = """
SELECT message_id, sent_at, receive_count, sealed_body
FROM login_ingest.lock_quarantined(%s, %s::text[], %s::text, %s)
"""

_REPLAY = "SELECT * FROM login_ingest.replay_messages(%s, %s::text::jsonb, %s::text::jsonb, %s)"

_READ_REPLAY = "SELECT replayed, still_rejected FROM login_ingest.replay WHERE replay_id = %s"

_DISCARD = "SELECT login_ingest.discard_messages(%s, %s::text[], %s::text, %s, %s)"

_EXPIRE = """
SELECT verdict, deleted, min_days FROM login_ingest.expire_quarantine(%s::integer, %s::integer)
"""
