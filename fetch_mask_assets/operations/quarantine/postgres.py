"""The quarantine: looking at sealed messages, replaying, discarding and expiring them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import UTC, datetime
from typing import Any

import polars as pl
import psycopg
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from fetch_mask_assets.audit.postgres import RECORDING_SESSION, record
from fetch_mask_assets.errors import FetchMaskError, RulesBrokenError, TokenError
from fetch_mask_assets.keys.keyset import Keyring, Sealer
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.keys.postgres import lock_keys, write_links
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS, RAW_SCHEMA, mask_batch
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch
from fetch_mask_assets.pipeline.batch.masking_rules import (
    broken_rules,
    quarantine_violations,
)
from fetch_mask_assets.pipeline.contract.body_profile import (
    UNREADABLE,
    ProfileCount,
    QuarantinedProfile,
    body_profile,
    count_profiles,
)
from fetch_mask_assets.postgres.connection import (
    TransientDatabaseError,
    connect,
    one_row,
    translate_errors,
)

MESSAGES_AT_ONCE = 200
"""Messages of one transaction, at most."""

# A sealed body can be a megabyte.
_BODIES_AT_ONCE = 50
_ROWS_AT_ONCE = 1_000
_ATTEMPTS = 4

_repeated = retry(
    retry=retry_if_exception_type(TransientDatabaseError),
    stop=stop_after_attempt(_ATTEMPTS),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    reraise=True,
)


class ExpiryRefusedError(FetchMaskError):
    """The database keeps quarantined messages for longer than was asked for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which quarantined messages: some ids, those of a reason, or, with neither, all."""

    message_ids: tuple[str, ...] | None = None
    reason: str | None = None

    @property
    def values(self) -> list[object]:
        """As the statements take it."""
        return [None if self.message_ids is None else list(self.message_ids), self.reason]


@dataclass(frozen=True, slots=True)
class QuarantinedMessage:
    """A message that is no login, and why not."""

    message_id: str
    reason: str
    field: str | None
    sent_at: datetime
    quarantined_at: datetime
    sealed_body: bytes = dataclass_field(repr=False)


@dataclass(frozen=True, slots=True)
class QuarantineBalance:
    """What became of all messages that were ever quarantined, in messages."""

    quarantined: int
    replayed: int
    discarded: int
    expired: int
    erased: int
    waiting: int
    holds: bool


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay, or a part of one, came to; `unopened` are among the still rejected."""

    replayed: int = 0
    still_rejected: int = 0
    unopened: int = 0

    @property
    def messages(self) -> int:
        """How many messages were looked at."""
        return self.replayed + self.still_rejected


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The quarantine of a warehouse, by its libpq URL; each verb is a connection of its own."""

    url: str = dataclass_field(repr=False)

    def shapes(self, sealer: Sealer, count: Callable[[int], None]) -> tuple[ProfileCount, ...]:
        """The messages counted by reason, field and shape; recorded and committed.

        Raises:
            DatabaseError: they cannot be read, or the audit cannot be written.
        """
        counted = count_profiles(_shape(line, sealer) for line in _each(self.messages(), count))
        detail = {"messages": sum(each.messages for each in counted), "kinds": len(counted)}
        self._record("quarantine.list", detail)
        return counted

    def messages(self) -> Iterator[QuarantinedMessage]:
        """Every message, held in memory fifty at a time.

        Raises:
            DatabaseError: they cannot be read.
        """
        with (
            self._session("read the quarantine") as connection,
            connection.cursor(name="quarantine") as cursor,
        ):
            cursor.itersize = _BODIES_AT_ONCE
            for line in cursor.execute(_READ):
                yield QuarantinedMessage(*line)

    def show(self, message_id: str) -> QuarantinedMessage | None:
        """One message, or None if it is not quarantined; recorded and committed first.

        Raises:
            DatabaseError: it cannot be read, or the audit cannot be written.
        """
        with self._session("show a quarantined message") as connection:
            row = connection.execute(_READ_ONE, [message_id]).fetchone()
            if row is None:
                return None
            record(connection, "quarantine.show", {"message_id": message_id})
            connection.commit()
            return QuarantinedMessage(*row)

    def count(self, choice: Choice) -> int:
        """How many messages a choice is.

        Raises:
            DatabaseError: they cannot be counted.
        """
        with self._session("count quarantined messages") as connection:
            return int(one_row(connection, _COUNT, *choice.values)[0])

    def account(self) -> QuarantineBalance:
        """What became of all that was ever quarantined.

        Raises:
            DatabaseError: it cannot be read.
        """
        with self._session("read the quarantine's account") as connection:
            return QuarantineBalance(*one_row(connection, _READ_ACCOUNT))

    def replay(self, replay_id: str, choice: Choice, keyring: Keyring) -> Iterator[Replayed]:
        """Takes messages through today's contract and masking, in transactions of bounded size.

        What is a login now becomes a row and leaves the quarantine; what is none stays, with
        today's reason. A message that another replay works on is left to that one.

        Yields:
            What each transaction came to, once it is committed.

        Raises:
            RulesBrokenError: masked messages break a rule; what was yielded is done, no more.
            DatabaseError: as above.
        """
        after = ""
        while True:
            step = self._replay_step(replay_id, choice, keyring, after)
            if step is None:
                return
            after, replayed = step
            yield replayed

    @_repeated
    def replayed(self, replay_id: str) -> Replayed:
        """What the database has recorded of a replay, without what did not open.

        Raises:
            DatabaseError: it cannot be read.
        """
        with self._session("read a replay") as connection:
            row = connection.execute(_READ_REPLAY, [replay_id]).fetchone()
        return Replayed() if row is None else Replayed(*row)

    def discard(self, discard_id: str, choice: Choice, why: str) -> Iterator[int]:
        """Deletes messages for good, in transactions of bounded size; yields how many each did.

        Raises:
            DatabaseError: what was yielded is done, no more.
        """
        while gone := self._discard_step(discard_id, choice, why):
            yield gone

    def expire(self, keep_days: int) -> Iterator[int]:
        """Deletes messages that are older, in transactions of bounded size; yields how many.

        Raises:
            ExpiryRefusedError: fewer days than the database's policy; the refusal is recorded.
            DatabaseError: what was yielded is done, no more.
        """
        while gone := self._expire_step(keep_days):
            yield gone

    @_repeated
    def _replay_step(
        self, replay_id: str, choice: Choice, keyring: Keyring, after: str
    ) -> tuple[str, Replayed] | None:
        with self._session("replay quarantined messages") as connection:
            taken = connection.execute(_TAKE, [after, *choice.values, MESSAGES_AT_ONCE]).fetchall()
            if not taken:
                return None
            return taken[-1][0], _replay(connection, replay_id, taken, keyring)

    @_repeated
    def _discard_step(self, discard_id: str, choice: Choice, why: str) -> int:
        with self._session("discard quarantined messages") as connection:
            values = [discard_id, *choice.values, why, _ROWS_AT_ONCE]
            return int(one_row(connection, _DISCARD, *values)[0])

    @_repeated
    def _expire_step(self, keep_days: int) -> int:
        with self._session("delete old quarantined messages") as connection:
            verdict, gone, at_least = one_row(connection, _EXPIRE, keep_days, _ROWS_AT_ONCE)
        if verdict != "expired":
            raise ExpiryRefusedError(
                f"refused, and the refusal is recorded: the database keeps quarantined messages for"
                f" at least {at_least} days, and {keep_days} were asked for. Raise"
                " LOGIN_QUARANTINE_RETENTION_DAYS, or have whoever migrates change"
                " login_ingest.quarantine_policy."
            )
        return int(gone)

    def _record(self, action: str, detail: Mapping[str, object]) -> None:
        with self._session("record") as connection:
            record(connection, action, detail)

    @contextmanager
    def _session(self, verb: str) -> Iterator[psycopg.Connection]:
        with translate_errors(verb), connect(self.url, options=RECORDING_SESSION) as connection:
            yield connection


def _each(
    messages: Iterable[QuarantinedMessage], count: Callable[[int], None]
) -> Iterator[QuarantinedMessage]:
    for message in messages:
        yield message
        count(1)


def _shape(message: QuarantinedMessage, sealer: Sealer) -> QuarantinedProfile:
    try:
        shape = body_profile(sealer.open(message.sealed_body, message.message_id))
    except TokenError:
        shape = UNREADABLE
    return QuarantinedProfile(message.reason, message.field, shape, message.quarantined_at)


def _replay(
    connection: psycopg.Connection, replay_id: str, taken: Sequence[Any], keyring: Keyring
) -> Replayed:
    raw = _opened(taken, keyring.sealer)
    masked = quarantine_violations(MaskedBatch(raw, mask_batch(raw, keyring), keyring))
    _refuse_broken(MaskedBatch(raw, masked, keyring))
    logins = masked.filter(pl.col("reason").is_null())
    rejected = masked.filter(pl.col("reason").is_not_null())
    # Keys before links, and links before the audit: the order in which all take them.
    lock_keys(connection, logins)
    write_links(connection, batch_links(logins, keyring))
    unopened = len(taken) - raw.height
    values = [
        logins.select("message_id", *LOGIN_COLUMNS, "app_version_text").write_json(),
        rejected.select("message_id", "reason", "field").write_json(),
        unopened,
    ]
    replayed, still_rejected = one_row(connection, _REPLAY, replay_id, *values)
    return Replayed(int(replayed), int(still_rejected), unopened)


def _opened(taken: Sequence[Any], sealer: Sealer) -> pl.DataFrame:
    """The raw batch of the messages that this keyset opens."""
    lines = []
    for message_id, sent_at, receive_count, sealed_body in taken:
        try:
            body = sealer.open(sealed_body, message_id)
        except TokenError:
            continue
        lines.append((message_id, "", sent_at.astimezone(UTC), receive_count, body))
    return pl.DataFrame(lines, schema=RAW_SCHEMA, orient="row")


def _refuse_broken(batch: MaskedBatch) -> None:
    broken = broken_rules(batch)
    if broken:
        counts = ", ".join(f"{name} ({count})" for name, count in broken.items())
        raise RulesBrokenError(
            f"the masked messages break the masking rules {counts}: of these nothing was written,"
            " and they stay in the quarantine."
        )


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
FROM login_ingest.quarantine, (VALUES (%s::text[], %s::text)) AS choice (message_ids, only_reason)
WHERE (message_ids IS NULL OR message_id = ANY (message_ids))
  AND (only_reason IS NULL OR reason = only_reason)
"""

_READ_ACCOUNT = """
SELECT quarantined, replayed, discarded, expired, erased, waiting, holds
FROM login_ingest.quarantine_balance
"""

_TAKE = """
SELECT message_id, sent_at, receive_count, sealed_body
FROM login_ingest.take_quarantined(%s, %s::text[], %s::text, %s)
"""

_REPLAY = "SELECT * FROM login_ingest.replay_messages(%s, %s::text::jsonb, %s::text::jsonb, %s)"

_READ_REPLAY = "SELECT replayed, still_rejected FROM login_ingest.replay WHERE replay_id = %s"

_DISCARD = "SELECT login_ingest.discard_messages(%s, %s::text[], %s::text, %s, %s)"

_EXPIRE = """
SELECT verdict, gone, at_least FROM login_ingest.expire_quarantine(%s::integer, %s::integer)
"""
