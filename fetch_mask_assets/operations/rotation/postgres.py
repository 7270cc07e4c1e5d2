"""Old tokens of the table: finding them, linking them, and replacing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import LiteralString, TypeVar

import polars as pl
import psycopg
from psycopg import sql

from fetch_mask_assets.keys.keyset import FieldMasker
from fetch_mask_assets.keys.postgres import write_job_links
from fetch_mask_assets.masking.fields import MaskedField
from fetch_mask_assets.operations.rotation.remasking import (
    EVERYTHING,
    Groups,
    Remasking,
    TextRange,
    ranges_outside,
    ranges_under,
    remask,
    unopened,
)
from fetch_mask_assets.postgres.locks import LINKS, acquire_lock
from fetch_mask_assets.postgres.sessions import (
    JOB_ATTEMPTS,
    LONG_RECORD,
    one_row,
    open_session,
    retry_transient,
)

TOKENS_AT_ONCE = 500
ROWS_AT_ONCE = 5_000
"""Rows of one transaction, at most: whoever needs them waits for no more than these."""
MAX_PASSES = 20
"""Only someone who goes on masking with an old key makes for more."""

_TOKENS_TO_OPEN = 20_000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Remasked:
    """What has been done to a field: distinct old tokens that were replaced, rows, passes.

    `unfinished` are re-maskings that never ended, with which this one goes on.
    """

    tokens: int = 0
    rows: int = 0
    passes: int = 0
    unfinished: int = 0


@dataclass(frozen=True, slots=True)
class RemaskJob:
    """A re-masking of a field that is on record as begun, by its number."""

    number: int
    field: MaskedField
    unfinished: int


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The tokens of user_logins, by the libpq URL of someone who may read and replace them.

    Each verb is a connection of its own, and is repeated where the failure may pass.
    """

    url: str = field(repr=False)

    def tokens(self, masked_field: MaskedField, within: TextRange, at_most: int) -> list[str]:
        """The first distinct texts of a field's column in a range, in the order of their bytes.

        Raises:
            DatabaseError: they cannot be read.
        """
        statement, values = _ranged(_TOKENS, masked_field, within)

        def read(connection: psycopg.Connection) -> list[str]:
            return [token for (token,) in connection.execute(statement, [*values, at_most])]

        return self._run("read tokens", read)

    def begin(self, masker: FieldMasker) -> RemaskJob:
        """Records that a field's tokens are being brought under the primary key.

        Raises:
            DatabaseError: it cannot be recorded, or the primary key is retired.
        """
        values = [masker.field.name, [masker.primary_key_id]]
        number, unfinished = self._run(
            "begin re-masking", lambda connection: one_row(connection, _BEGIN, *values)
        )
        return RemaskJob(int(number), masker.field, int(unfinished))

    def end(self, change: RemaskJob) -> None:
        """Records that a re-masking has ended, with what the database has counted of it.

        Raises:
            DatabaseError: it cannot be recorded.
        """
        self._run("end re-masking", lambda connection: connection.execute(_END, [change.number]))

    def link(self, change: RemaskJob, remasking: Remasking) -> None:
        """Links old tokens to new ones, of values that the table still has.

        A value that was erased since its token was read must not come back as a link.

        Raises:
            DatabaseError: nothing was linked.
        """
        statement = _on(_PRESENT, change.field)

        def write(connection: psycopg.Connection) -> None:
            acquire_lock(connection, LINKS)
            rows = connection.execute(statement, [list(remasking.replacements)])
            newest = {remasking.replacements[token] for (token,) in rows}
            links = [each for each in remasking.links if each.new_token in newest]
            write_job_links(connection, change.number, links)

        self._run("link tokens", write)

    def replace(self, change: RemaskJob, replacements: Mapping[str, str]) -> int:
        """Replaces tokens in all rows that have them; returns how many rows that were.

        Only where both are at the end of the same link: readers of the view see no change.

        Raises:
            DatabaseError: some rows are replaced, the others are as they were.
        """
        replaced = 0
        while more := self._replace_some(change, replacements):
            replaced += more
        return replaced

    def rows_within(self, masked_field: MaskedField, ranges: Sequence[TextRange]) -> int:
        """How many rows have a text of a field's column in one of some ranges.

        Raises:
            DatabaseError: they cannot be counted.
        """
        statements = [_ranged(_COUNT, masked_field, each) for each in ranges]

        def count(connection: psycopg.Connection) -> int:
            counts = (connection.execute(*each).fetchall() for each in statements)
            return sum(number for [(number,)] in counts)

        return self._run("count tokens", count)

    def rows_under(self, masked_field: MaskedField, key_id: int) -> int:
        """How many rows have a token under a key.

        Raises:
            DatabaseError: they cannot be counted.
        """
        return self.rows_within(masked_field, ranges_under(masked_field, key_id))

    def rows_left(self, masker: FieldMasker) -> int:
        """How many rows have anything but a token under the primary key, or null.

        Raises:
            DatabaseError: they cannot be counted.
        """
        outside = ranges_outside(masker.field, masker.primary_key_id)
        return self.rows_within(masker.field, outside)

    def groups(self, masked_field: MaskedField) -> Groups:
        """A field's groups of equal values, its links and the batch records, at one moment.

        Raises:
            DatabaseError: they cannot be read.
        """

        def read(connection: psycopg.Connection) -> Groups:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            groups = _copied(connection, _on(_GROUPS, masked_field))
            links = _copied(connection, _on(_LINKS, masked_field))
            [(loaded,)] = connection.execute(_LOADED).fetchall()
            return Groups(groups.with_columns(pl.col("rows").cast(pl.Int64)), links, int(loaded))

        return self._run("read the groups", read)

    def _replace_some(self, change: RemaskJob, replacements: Mapping[str, str]) -> int:
        values = [change.number, list(replacements), list(replacements.values()), ROWS_AT_ONCE]
        (rows,) = self._run(
            "replace tokens", lambda connection: one_row(connection, _REPLACE, *values)
        )
        return int(rows)

    @retry_transient(JOB_ATTEMPTS)
    def _run(self, action: str, work: Callable[[psycopg.Connection], _T]) -> _T:
        with open_session(self.url, LONG_RECORD, action) as connection:
            return work(connection)


def remask_field(
    table: TokenTable, masker: FieldMasker, tell: Callable[[Remasked], None]
) -> Remasked:
    """Brings a field's tokens under the primary key, until a pass finds none, or too many passes.

    The table itself is the state: whenever this is stopped, the next call goes on, and the audit
    says that the one before did not end. Links are committed before the rows that need them are
    changed, so equal is equal at every moment.

    Args:
        table: the tokens, where new ones under old keys may come in meanwhile.
        masker: the field's keys; tokens that none of them opens are left alone.
        tell: called after each page of tokens with what is done so far.

    Raises:
        DatabaseError: the database refused, or failed again and again.
    """
    change = table.begin(masker)
    done = Remasked(unfinished=change.unfinished)
    while done.passes < MAX_PASSES:
        before = done
        for tokens in _old_tokens(table, masker):
            done = _remask_page(table, masker, change, tokens, done)
            tell(done)
        done = replace(done, passes=before.passes + 1)
        if done.rows == before.rows:
            break
    table.end(change)
    return done


def unopened_tokens(table: TokenTable, masker: FieldMasker) -> dict[str, int]:
    """How many distinct tokens of the whole table do not open, by kind.

    Raises:
        DatabaseError: they cannot be read.
    """
    counts: Counter[str] = Counter()
    for tokens in _pages(table, masker.field, EVERYTHING, _TOKENS_TO_OPEN):
        counts.update(unopened(masker, tokens))
    return dict(counts)


def _remask_page(
    table: TokenTable, masker: FieldMasker, change: RemaskJob, tokens: Sequence[str], done: Remasked
) -> Remasked:
    wanted = remask(masker, tokens)
    table.link(change, wanted)
    rows = table.replace(change, wanted.replacements)
    return replace(done, tokens=done.tokens + len(wanted.replacements), rows=done.rows + rows)


def _old_tokens(table: TokenTable, masker: FieldMasker) -> Iterator[list[str]]:
    for outside in ranges_outside(masker.field, masker.primary_key_id):
        yield from _pages(table, masker.field, outside, TOKENS_AT_ONCE)


def _pages(
    table: TokenTable, masked_field: MaskedField, within: TextRange, at_once: int
) -> Iterator[list[str]]:
    while page := table.tokens(masked_field, within, at_once):
        yield page
        within = within.after(page[-1])


def _on(statement: LiteralString, masked_field: MaskedField) -> sql.Composed:
    return sql.SQL(statement).format(
        token=sql.Identifier(masked_field.column), field=sql.Literal(masked_field.name)
    )


def _ranged(
    statement: LiteralString, masked_field: MaskedField, within: TextRange
) -> tuple[sql.Composed, list[str]]:
    """A statement on a range of texts, and the values of the range."""
    condition = "{token} ~>=~ %s" if within.high is None else "{token} ~>=~ %s AND {token} ~<~ %s"
    values = [within.low] if within.high is None else [within.low, within.high]
    return _on(statement.replace("{range}", condition), masked_field), values


def _copied(connection: psycopg.Connection, query: sql.Composed) -> pl.DataFrame:
    """The result of a query, every column as text."""
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')").format(query)
    with connection.cursor().copy(statement) as copy:
        csv = BytesIO(b"".join(copy))
    return pl.read_csv(csv, infer_schema=False)


# Texts in the order of their bytes, whatever the database's collation: ~>=~ and ~<~ are the
# operators of the indexes on the tokens.
_TOKENS = """
SELECT DISTINCT {token} FROM user_logins WHERE {range} ORDER BY {token} USING ~<~ LIMIT %s
"""

_PRESENT = "SELECT DISTINCT {token} FROM user_logins WHERE {token} = ANY(%s::text[])"

_COUNT = "SELECT count(*) FROM user_logins WHERE {range}"

_BEGIN = "SELECT change, unfinished FROM login_ingest.begin_remask_job('remask', %s, %s::bigint[])"

_END = "SELECT login_ingest.finish_remask_job(%s, 'remask')"

_REPLACE = "SELECT login_ingest.replace_tokens(%s, %s::text[], %s::text[], %s)"

_GROUPS = """
SELECT {token} AS token, count(*) AS rows FROM login_ingest.user_logins_linked GROUP BY {token}
"""

_LINKS = "SELECT old_token, new_token FROM login_ingest.token_link WHERE field = {field}"

_LOADED = "SELECT coalesce(sum(loaded), 0) FROM login_ingest.batch"
