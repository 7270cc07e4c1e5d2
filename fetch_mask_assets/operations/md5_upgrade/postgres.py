"""Replacing MD5 digests in user_logins by tokens.

Two steps, each of which can be killed at any point and repeated. First the digests whose values
are found are noted with their tokens, next to the ranges that have been tried; user_logins stays
as it is. Then they are replaced in the order of the tokens: rows change places when they change,
and in the order in which values are tried their places would tell the values.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.keyset import FieldMasker
from fetch_mask_assets.masking.fields import MAX_TOKEN_LENGTH, MaskedField
from fetch_mask_assets.operations.md5_upgrade.digests import (
    Search,
    Space,
    Span,
    Wanted,
    md5,
    pieces,
    wanted,
    without,
    worth_recording,
)
from fetch_mask_assets.operations.md5_upgrade.search import search_spans
from fetch_mask_assets.postgres.locks import MD5_UPGRADE, acquire_lease
from fetch_mask_assets.postgres.sessions import LONG_RECORD, one_row, open_session

DIGESTS_AT_ONCE = 20_000
"""Distinct digests that one transaction replaces."""

_NOTE_AFTER_MATCHES = 20_000
_NOTE_AFTER_SECONDS = 5.0
_VALUES_AT_ONCE = 50_000

_NO_SPANS: Mapping[Span, int] = MappingProxyType({})


class Md5UpgradeError(FetchMaskError):
    """An upgrade cannot begin or go on; says what to do."""


@dataclass(frozen=True, slots=True)
class DigestCount:
    """What of a field is still MD5: distinct digests, and the rows that hold them."""

    digests: int
    rows: int


@dataclass(frozen=True, slots=True)
class Replaced:
    """What has been replaced: distinct digests, and rows."""

    digests: int = 0
    rows: int = 0

    def __add__(self, more: Replaced) -> Replaced:
        """Both together."""
        return Replaced(self.digests + more.digests, self.rows + more.rows)


@dataclass(frozen=True, slots=True)
class DigestTable:
    """A field's digests in user_logins, by the libpq URL of someone who may replace them.

    Each verb is a connection and a transaction of its own. A digest counts as MD5 if it is 32
    hexadecimal digits, all in lower or all in upper case.
    """

    url: str = field(repr=False)
    field: MaskedField

    def count(self) -> DigestCount:
        """What is still MD5.

        Raises:
            DatabaseError: it cannot be counted.
        """
        with open_session(self.url, LONG_RECORD, "count MD5 digests") as connection:
            [(digests, rows)] = connection.execute(self._on(_COUNT)).fetchall()
        return DigestCount(digests, rows)

    def digests(self) -> bytes:
        """The distinct digests whose values are not found yet, 16 bytes each.

        Raises:
            DatabaseError: they cannot be read.
        """
        with open_session(self.url, LONG_RECORD, "read MD5 digests") as connection:
            parts = connection.cursor(binary=True).execute(self._on(_DIGESTS), [self.field.name])
            return b"".join(part for (part,) in parts)

    def tried(self, space: Space) -> list[Span]:
        """What of a space an upgrade that was stopped has tried already.

        Raises:
            DatabaseError: it cannot be read.
        """
        with open_session(self.url, LONG_RECORD, "read how far the upgrade is") as connection:
            rows = connection.execute(_TRIED, [self.field.name, space.name]).fetchall()
        return [Span(start, stop) for start, stop in rows]

    def note(
        self, tokens: Mapping[bytes, str], space: str = "", spans: Mapping[Span, int] = _NO_SPANS
    ) -> None:
        """Notes tokens for digests, and the spans of a space that were tried, with their yield.

        A digest that has a note keeps it; how many were noted is in the audit.

        Raises:
            DatabaseError: nothing was noted.
        """
        names = [digest.hex() for digest in tokens]
        with (
            open_session(self.url, LONG_RECORD, "note what was found") as connection,
            connection.transaction(),
        ):
            connection.execute(_NOTE, [self.field.name, names, list(tokens.values())])
            for span in worth_recording(spans):
                values = [self.field.name, space, span.start, span.stop, _found(spans, span)]
                connection.execute(_NOTE_SPAN, values)

    def begin(self) -> int | None:
        """Records that digests are being replaced; its number, or None if none is noted.

        Raises:
            DatabaseError: it cannot be recorded.
        """
        with open_session(self.url, LONG_RECORD, "begin to replace MD5 digests") as connection:
            (is_any,) = one_row(connection, _ANY_NOTED, self.field.name)
            if not is_any:
                return None
            (change,) = one_row(connection, _BEGIN, self.field.name)
            return int(change)

    def replace_some(self, change: int, *, with_links: bool) -> Replaced | None:
        """Replaces some of the digests that were noted, in one transaction; None if none was left.

        Raises:
            DatabaseError: nothing was replaced.
        """
        values = [change, DIGESTS_AT_ONCE, with_links]
        with open_session(self.url, LONG_RECORD, "replace MD5 digests") as connection:
            taken, digests, rows = one_row(connection, _REPLACE, *values)
        return Replaced(int(digests), int(rows)) if taken else None

    def end(self, change: int) -> None:
        """Records what has been replaced, as the database has counted it.

        Raises:
            DatabaseError: it cannot be recorded.
        """
        with open_session(self.url, LONG_RECORD, "end to replace MD5 digests") as connection:
            connection.execute(_END, [change])

    def forget(self, search: Search) -> None:
        """Forgets that spans were tried: the next upgrade begins anew.

        Raises:
            DatabaseError: nothing was forgotten.
        """
        with open_session(self.url, LONG_RECORD, "finish the upgrade") as connection:
            for span in search.spans:
                values = [self.field.name, search.space.name, span.start, span.stop]
                connection.execute(_FORGET, values)

    def _on(self, statement: LiteralString) -> sql.Composed:
        return sql.SQL(statement).format(column=sql.Identifier(self.field.column))


@dataclass(frozen=True, slots=True)
class Attempt:
    """What to try for a field: spaces, and a file of known values; on how many cores."""

    searches: tuple[Search, ...]
    values: Path | None
    cores: int


@contextmanager
def only_upgrade(url: str) -> Iterator[None]:
    """Keeps every other upgrade of the database out.

    Raises:
        Md5UpgradeError: another one is under way.
        DatabaseError: the database cannot be reached.
    """
    with open_session(url, LONG_RECORD, "begin the upgrade") as connection:
        connection.autocommit = True
        if not acquire_lease(connection, MD5_UPGRADE):
            raise Md5UpgradeError("another upgrade from MD5 is under way: wait until it has ended.")
        yield


def drop_links(url: str) -> int:
    """Removes the links from MD5 digests to tokens, of every field; returns how many.

    Raises:
        DatabaseError: nothing was removed.
    """
    with open_session(url, LONG_RECORD, "drop the links from MD5") as connection:
        [(dropped,)] = connection.execute("SELECT login_ingest.drop_md5_links()").fetchall()
        return int(dropped)


def record(url: str, action: str, detail: str) -> None:
    """Appends to the audit.

    Raises:
        DatabaseError: nothing was recorded.
    """
    with open_session(url, LONG_RECORD, "record in the audit") as connection:
        connection.execute("SELECT login_ingest.record_audit(%s, %s)", [action, detail])


def forget(table: DigestTable, attempt: Attempt) -> None:
    """Forgets what of an attempt was tried: it is complete, and the next begins anew.

    Raises:
        DatabaseError: some of it is not forgotten.
    """
    for search in attempt.searches:
        table.forget(search)


def untried(table: DigestTable, attempt: Attempt) -> Attempt:
    """An attempt without what was tried before the last upgrade was stopped.

    Raises:
        DatabaseError: what was tried cannot be read.
    """
    left = tuple(
        Search(each.space, tuple(without(each.spans, table.tried(each.space))))
        for each in attempt.searches
    )
    return replace(attempt, searches=left)


def find_tokens(
    table: DigestTable, masker: FieldMasker, attempt: Attempt, tell: Callable[[int], None]
) -> int:
    """Finds the values of digests and notes their tokens; returns how many digests that were.

    Args:
        table: the field's digests.
        masker: makes the tokens.
        attempt: what to try, as `untried` gives it.
        tell: called with how many more values of the spaces are tried.

    Raises:
        DatabaseError: the database refused; what is noted stays.
        Md5UpgradeError: the file of values cannot be read.
        SearchError: a worker died; what is noted stays.
    """
    notes = _Notes(table)
    finder = _Finder(wanted(table.digests()))
    for search in attempt.searches:
        for span, values in finder.in_space(search, attempt.cores):
            notes.add(_tokens(masker, values), search.space.name, span)
            tell(len(span))
        notes.write()
    for values in finder.in_file(attempt.values):
        notes.add(_tokens(masker, values))
    notes.write()
    return notes.count


def count_findable(targets: bytes, attempt: Attempt, tell: Callable[[int], None]) -> int:
    """How many of the digests `find_tokens` would find; writes nothing.

    Args:
        targets: the digests, 16 bytes each.
        attempt: what to try.
        tell: called with how many more values of the spaces are tried.

    Raises:
        Md5UpgradeError: the file of values cannot be read.
        SearchError: a worker died.
    """
    finder = _Finder(wanted(targets))
    for search in attempt.searches:
        for span, _ in finder.in_space(search, attempt.cores):
            tell(len(span))
    for _ in finder.in_file(attempt.values):
        pass
    return finder.count


def replace_all(
    table: DigestTable, *, with_links: bool, tell: Callable[[Replaced], None]
) -> Replaced:
    """Replaces every digest that is noted, in bounded transactions.

    Args:
        table: the field's digests.
        with_links: whether to link each digest to its token.
        tell: called after each transaction with what has been replaced so far.

    Raises:
        DatabaseError: the database refused; the transactions before stay.
    """
    done = Replaced()
    change = table.begin()
    if change is None:
        return done
    while (more := table.replace_some(change, with_links=with_links)) is not None:
        done += more
        tell(done)
    table.end(change)
    return done


class _Finder:
    """Finds the values of digests, each digest once, and stops when none is left to find."""

    def __init__(self, targets: Wanted) -> None:
        self._looked_for = targets
        self._is_found: NDArray[np.bool_] = np.zeros(len(targets), np.bool_)
        self.count = 0

    def in_space(self, search: Search, cores: int) -> Iterator[tuple[Span, list[str]]]:
        spans = pieces(search.spans, search.space.size)
        if self._is_done() or not spans:
            return
        found = search_spans(search.space, spans, self._looked_for, min(cores, len(spans)))
        for span, numbers in found:
            yield span, self._new(map(search.space.text, numbers))
            if self._is_done():
                found.close()
                return

    def in_file(self, path: Path | None) -> Iterator[list[str]]:
        values = _read_values(path) if path and not self._is_done() else iter(())
        while some := list(islice(values, _VALUES_AT_ONCE)):
            yield self._new(some)

    def _is_done(self) -> bool:
        return self.count == len(self._looked_for)

    def _new(self, values: Iterable[str]) -> list[str]:
        return [value for value in values if self._is_new(value)]

    def _is_new(self, value: str) -> bool:
        place = self._looked_for.place(md5(value))
        if place is None or self._is_found[place]:
            return False
        self._is_found[place] = True
        self.count += 1
        return True


class _Notes:
    """Tokens and spans on their way into the database, a few thousand or seconds at once."""

    def __init__(self, table: DigestTable) -> None:
        self._table = table
        self._tokens: dict[bytes, str] = {}
        self._space = ""
        self._spans: dict[Span, int] = {}
        self._since = time.monotonic()
        self.count = 0

    def add(self, tokens: Mapping[bytes, str], space: str = "", span: Span | None = None) -> None:
        self._tokens.update(tokens)
        self._space = space
        if span:
            self._spans[span] = len(tokens)
        if len(self._tokens) >= _NOTE_AFTER_MATCHES or self._age >= _NOTE_AFTER_SECONDS:
            self.write()

    def write(self) -> None:
        if self._tokens or self._spans:
            self._table.note(self._tokens, self._space, self._spans)
        self.count += len(self._tokens)
        self._tokens, self._spans = {}, {}
        self._since = time.monotonic()

    @property
    def _age(self) -> float:
        return time.monotonic() - self._since


def _tokens(masker: FieldMasker, values: Sequence[str]) -> dict[bytes, str]:
    """The tokens of those values that the field can have, by their digests."""
    tokens = {md5(value): _token(masker, value) for value in values}
    return {digest: token for digest, token in tokens.items() if token}


def _token(masker: FieldMasker, value: str) -> str | None:
    try:
        token = masker.mask(value)
    except ValueError:
        return None
    return token if len(token) <= MAX_TOKEN_LENGTH else None


def _found(spans: Mapping[Span, int], whole: Span) -> int:
    return sum(count for span, count in spans.items() if whole.start <= span.start < whole.stop)


def _read_values(path: Path) -> Iterator[str]:
    """The lines of a private file, without the empty ones."""
    try:
        with path.open("rb") as file:
            _refuse_shared(path, os.fstat(file.fileno()).st_mode)
            for number, line in enumerate(file, start=1):
                if value := line.rstrip(b"\r\n"):
                    yield _decoded(number, value)
    except OSError as error:
        raise Md5UpgradeError(f"{path} cannot be read: {type(error).__name__}.") from None


def _decoded(number: int, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Md5UpgradeError(f"line {number} of the values is not UTF-8.") from None


def _refuse_shared(path: Path, mode: int) -> None:
    if stat.S_IMODE(mode) & ~0o600:
        raise Md5UpgradeError(
            f"{path} has mode {stat.S_IMODE(mode):04o}: others can read the values in it. It must"
            " be 0600 or stricter."
        )


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
    SELECT FROM login_ingest.md5_match AS noted
    WHERE noted.field = %s AND noted.digest = digests.digest
)
GROUP BY left(digest, 2)
"""

_TRIED = """
SELECT range_start, range_end FROM login_ingest.md5_upgrade WHERE (field, space) = (%s, %s)
"""

_NOTE = "SELECT login_ingest.record_md5_matches(%s, %s::text[], %s::text[])"

_NOTE_SPAN = """
INSERT INTO login_ingest.md5_upgrade (field, space, range_start, range_end, found)
VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""

_ANY_NOTED = "SELECT EXISTS (SELECT FROM login_ingest.md5_match WHERE field = %s)"

_BEGIN = "SELECT change FROM login_ingest.begin_remask_job('replace-digests', %s, '{}')"

_REPLACE = """
SELECT taken, replaced, changed FROM login_ingest.replace_digests(%s, %s, %s)
"""

_END = "SELECT login_ingest.finish_remask_job(%s, 'replace-digests')"

_FORGET = """
DELETE FROM login_ingest.md5_upgrade
WHERE (field, space) = (%s, %s) AND range_start >= %s AND range_end <= %s
"""
