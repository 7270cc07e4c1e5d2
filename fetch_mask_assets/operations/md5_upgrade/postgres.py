"""MD5 digests of user_logins in Postgres: count, read, record matches, replace by tokens.

An upgrade has two steps. Each can be killed at any point and repeated. First, digests whose values
were found are recorded with their tokens, beside the spans that were searched; user_logins does
not change. Then the digests are replaced in the order of the tokens. Rows move when they change:
in the order of the search, their positions would reveal the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import LiteralString

from psycopg import sql

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.masking.fields import MaskedField
from fetch_mask_assets.operations.md5_upgrade.spaces import Search, Space
from fetch_mask_assets.operations.md5_upgrade.spans import Span, recordable_spans
from fetch_mask_assets.postgres.locks import MD5_UPGRADE, acquire_lease
from fetch_mask_assets.postgres.sessions import LONG_RECORD, one_row, open_session

DIGESTS_PER_TRANSACTION = 20_000
"""Distinct digests that one transaction replaces."""

_NO_SPANS: Mapping[Span, int] = MappingProxyType({})


class UpgradeRunningError(FetchMaskError):
    """Another upgrade of the database is running."""


@dataclass(frozen=True, slots=True)
class DigestCount:
    """MD5 digests that a field still has: distinct digests, and their rows."""

    digests: int
    rows: int


@dataclass(frozen=True, slots=True)
class ReplaceCount:
    """Replaced digests: distinct digests, and rows."""

    digests: int = 0
    rows: int = 0

    def __add__(self, other: ReplaceCount) -> ReplaceCount:
        """Return the sums."""
        return ReplaceCount(self.digests + other.digests, self.rows + other.rows)


@dataclass(frozen=True, slots=True)
class DigestTable:
    """A field's MD5 digests in user_logins, by the libpq URL of a member of recovery.

    Each method opens one connection and one transaction. A text is a digest if it is 32
    hexadecimal digits, all in lower or all in upper case.
    """

    url: str = field(repr=False)
    field: MaskedField

    def count(self) -> DigestCount:
        """Count the digests and their rows.

        Raises:
            DatabaseError: they cannot be counted.
        """
        with open_session(self.url, LONG_RECORD, "count MD5 digests") as connection:
            [(digests, rows)] = connection.execute(self._on(_COUNT)).fetchall()
        return DigestCount(digests, rows)

    def digests(self) -> bytes:
        """Return the distinct digests that have no recorded match, 16 bytes each.

        Raises:
            DatabaseError: they cannot be read.
        """
        with open_session(self.url, LONG_RECORD, "read MD5 digests") as connection:
            parts = connection.cursor(binary=True).execute(self._on(_DIGESTS), [self.field.name])
            return b"".join(part for (part,) in parts)

    def searched_spans(self, space: Space) -> list[Span]:
        """Return the spans of a space that an interrupted upgrade has searched.

        Raises:
            DatabaseError: they cannot be read.
        """
        with open_session(self.url, LONG_RECORD, "read the progress of the upgrade") as connection:
            rows = connection.execute(_SEARCHED, [self.field.name, space.name]).fetchall()
        return [Span(start, stop) for start, stop in rows]

    def record_matches(
        self, tokens: Mapping[bytes, str], space: str = "", spans: Mapping[Span, int] = _NO_SPANS
    ) -> None:
        """Record tokens by digest, and the searched spans of a space with their matches.

        A digest that has a match keeps it. The audit counts the new ones.

        Raises:
            DatabaseError: nothing was recorded.
        """
        digests = [digest.hex() for digest in tokens]
        with (
            open_session(self.url, LONG_RECORD, "record MD5 matches") as connection,
            connection.transaction(),
        ):
            connection.execute(_RECORD_MATCHES, [self.field.name, digests, list(tokens.values())])
            for span in recordable_spans(spans):
                matches = _matches_within(spans, span)
                values = [self.field.name, space, span.start, span.stop, matches]
                connection.execute(_RECORD_SPAN, values)

    def begin_job(self) -> int | None:
        """Record the start of a replacement; return its number, or None without a recorded match.

        Raises:
            DatabaseError: it cannot be recorded.
        """
        with open_session(self.url, LONG_RECORD, "begin to replace MD5 digests") as connection:
            (has_matches,) = one_row(connection, _HAS_MATCHES, self.field.name)
            if not has_matches:
                return None
            (job,) = one_row(connection, _BEGIN_JOB, self.field.name)
            return int(job)

    def replace_next(self, job: int, *, with_links: bool) -> ReplaceCount | None:
        """Replace the next digests in one transaction; return None if no match was left.

        Raises:
            DatabaseError: nothing was replaced.
        """
        values = [job, DIGESTS_PER_TRANSACTION, with_links]
        with open_session(self.url, LONG_RECORD, "replace MD5 digests") as connection:
            taken, digests, rows = one_row(connection, _REPLACE, *values)
        return ReplaceCount(int(digests), int(rows)) if taken else None

    def finish_job(self, job: int) -> None:
        """Record the end of a replacement, with the counts of the database.

        Raises:
            DatabaseError: it cannot be recorded.
        """
        with open_session(self.url, LONG_RECORD, "finish replacing MD5 digests") as connection:
            connection.execute(_FINISH_JOB, [job])

    def clear_progress(self, search: Search) -> None:
        """Delete the record of searched spans: the next upgrade starts from the beginning.

        Raises:
            DatabaseError: nothing was deleted.
        """
        with open_session(self.url, LONG_RECORD, "finish the upgrade") as connection:
            for span in search.spans:
                values = [self.field.name, search.space.name, span.start, span.stop]
                connection.execute(_CLEAR_PROGRESS, values)

    def _on(self, statement: LiteralString) -> sql.Composed:
        return sql.SQL(statement).format(column=sql.Identifier(self.field.column))


@contextmanager
def upgrade_lease(url: str) -> Iterator[None]:
    """Hold the lease that allows one upgrade of the database at a time.

    Raises:
        UpgradeRunningError: another upgrade holds the lease.
        DatabaseError: the database cannot be reached.
    """
    with open_session(url, LONG_RECORD, "begin the upgrade") as connection:
        connection.autocommit = True
        if not acquire_lease(connection, MD5_UPGRADE):
            raise UpgradeRunningError(
                "another upgrade from MD5 is under way: wait until it has finished."
            )
        yield


def drop_links(url: str) -> int:
    """Delete the links from MD5 digests to tokens, of every field; return their number.

    Raises:
        DatabaseError: nothing was deleted.
    """
    with open_session(url, LONG_RECORD, "drop the links from MD5") as connection:
        [(dropped,)] = connection.execute("SELECT login_ingest.drop_md5_links()").fetchall()
        return int(dropped)


def _matches_within(spans: Mapping[Span, int], whole: Span) -> int:
    return sum(count for span, count in spans.items() if whole.start <= span.start < whole.stop)


_COUNT = """
SELECT count(DISTINCT lower({column} COLLATE "C")), count(*) FROM user_logins
WHERE {column} ~ '^([0-9a-f]{{32}}|[0-9A-F]{{32}})$'
"""

# Grouped, because one value of Postgres holds no more than 1 GB.
_DIGESTS = """
WITH digests AS (
    SELECT DISTINCT lower({column} COLLATE "C") AS digest FROM user_logins
    WHERE {column} ~ '^([0-9a-f]{{32}}|[0-9A-F]{{32}})$'
)
SELECT string_agg(decode(digest, 'hex'), ''::bytea) FROM digests
WHERE NOT EXISTS (
    SELECT FROM login_ingest.md5_match AS recorded
    WHERE recorded.field = %s AND recorded.digest = digests.digest
)
GROUP BY left(digest, 2)
"""

_SEARCHED = """
SELECT range_start, range_end FROM login_ingest.md5_searched_range
WHERE (field, search_space) = (%s, %s)
"""

_RECORD_MATCHES = "SELECT login_ingest.record_md5_matches(%s, %s::text[], %s::text[])"

_RECORD_SPAN = """
INSERT INTO login_ingest.md5_searched_range
    (field, search_space, range_start, range_end, matched_digests)
VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""

_HAS_MATCHES = "SELECT EXISTS (SELECT FROM login_ingest.md5_match WHERE field = %s)"

_BEGIN_JOB = "SELECT job FROM login_ingest.begin_remask_job('upgrade-md5', %s, '{}')"

_REPLACE = """
SELECT digests_processed, digests_replaced, rows_changed
FROM login_ingest.replace_digests(%s, %s, %s)
"""

_FINISH_JOB = "SELECT login_ingest.finish_remask_job(%s, 'upgrade-md5')"

_CLEAR_PROGRESS = """
DELETE FROM login_ingest.md5_searched_range
WHERE (field, search_space) = (%s, %s) AND range_start >= %s AND range_end <= %s
"""
