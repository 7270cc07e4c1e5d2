"""Tokens of user_logins in Postgres: read, link, replace and count them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import LiteralString, TypeVar

import polars as pl
import psycopg
from psycopg import sql

from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.keys.postgres import write_job_links
from fetch_mask_assets.masking.fields import MaskedField
from fetch_mask_assets.operations.rotation.remask_plan import RemaskPlan
from fetch_mask_assets.operations.rotation.remask_rules import FieldSnapshot
from fetch_mask_assets.operations.rotation.token_ranges import (
    TextRange,
    ranges_outside,
)
from fetch_mask_assets.postgres.locks import LINKS, acquire_lock
from fetch_mask_assets.postgres.sessions import (
    JOB_ATTEMPTS,
    LONG_RECORD,
    one_row,
    open_session,
    retry_transient,
)

ROWS_PER_TRANSACTION = 5_000
"""Another session that needs a changed row waits for one such transaction."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RemaskJob:
    """A re-masking of a field whose start the audit records.

    `unfinished` counts earlier jobs of the field that did not finish.
    """

    number: int
    field: MaskedField
    unfinished: int


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The tokens of user_logins, by the libpq URL of a member of recovery.

    Each method opens its own connection, and repeats its work after a transient failure.
    """

    url: str = field(repr=False)

    def tokens(self, masked_field: MaskedField, within: TextRange, limit: int) -> list[str]:
        """Return the first distinct texts of a field's column in a range, in byte order.

        Raises:
            DatabaseError: they cannot be read.
        """
        statement, values = _ranged(_TOKENS, masked_field, within)

        def read(connection: psycopg.Connection) -> list[str]:
            return [token for (token,) in connection.execute(statement, [*values, limit])]

        return self._run("read tokens", read)

    def begin(self, masker: FieldMasker) -> RemaskJob:
        """Record the start of a re-masking of a field under its primary key.

        Raises:
            DatabaseError: it cannot be recorded, or the primary key is retired.
        """
        values = [masker.field.name, [masker.primary_key_id]]
        number, unfinished = self._run(
            "begin re-masking", lambda connection: one_row(connection, _BEGIN, *values)
        )
        return RemaskJob(int(number), masker.field, int(unfinished))

    def finish(self, job: RemaskJob) -> None:
        """Record the end of a re-masking, with the counts of the database. May be repeated.

        Raises:
            DatabaseError: it cannot be recorded.
        """
        self._run("finish re-masking", lambda connection: connection.execute(_FINISH, [job.number]))

    def link(self, job: RemaskJob, plan: RemaskPlan) -> None:
        """Link old tokens to new ones, for the values that are still in the table.

        A value that was erased since its token was read must not return as a link.

        Raises:
            DatabaseError: nothing was linked.
        """
        statement = _on(_PRESENT, job.field)

        def write(connection: psycopg.Connection) -> None:
            acquire_lock(connection, LINKS)
            rows = connection.execute(statement, [list(plan.replacements)])
            newest = {plan.replacements[token] for (token,) in rows}
            links = [each for each in plan.links if each.new_token in newest]
            write_job_links(connection, job.number, links)

        self._run("link tokens", write)

    def replace(self, job: RemaskJob, replacements: Mapping[str, str]) -> int:
        """Replace tokens in all their rows; return the number of rows.

        The database replaces a token only if both tokens are at the end of the same link, so
        readers of the view see no change.

        Raises:
            DatabaseError: some transactions are committed, the other rows did not change.
        """
        replaced = 0
        while more := self._replace_next(job, replacements):
            replaced += more
        return replaced

    def rows_within(self, masked_field: MaskedField, ranges: Sequence[TextRange]) -> int:
        """Count the rows whose text of a field's column is in one of the ranges.

        Raises:
            DatabaseError: they cannot be counted.
        """
        statements = [_ranged(_COUNT, masked_field, each) for each in ranges]

        def count(connection: psycopg.Connection) -> int:
            counts = (connection.execute(*each).fetchall() for each in statements)
            return sum(number for [(number,)] in counts)

        return self._run("count tokens", count)

    def rows_left(self, masker: FieldMasker) -> int:
        """Count the rows whose text is neither null nor a token under the primary key.

        Raises:
            DatabaseError: they cannot be counted.
        """
        outside = ranges_outside(masker.field, masker.primary_key_id)
        return self.rows_within(masker.field, outside)

    def snapshot(self, masked_field: MaskedField) -> FieldSnapshot:
        """Return a field's groups of equal values, its links and the loaded rows, at one moment.

        Raises:
            DatabaseError: they cannot be read.
        """

        def read(connection: psycopg.Connection) -> FieldSnapshot:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            groups = _copied(connection, _on(_GROUPS, masked_field))
            links = _copied(connection, _on(_LINKS, masked_field))
            [(loaded,)] = connection.execute(_LOADED).fetchall()
            counted = groups.with_columns(pl.col("rows").cast(pl.Int64))
            return FieldSnapshot(counted, links, int(loaded))

        return self._run("read the groups", read)

    def _replace_next(self, job: RemaskJob, replacements: Mapping[str, str]) -> int:
        tokens = (list(replacements), list(replacements.values()))
        values = [job.number, *tokens, ROWS_PER_TRANSACTION]
        (rows,) = self._run(
            "replace tokens", lambda connection: one_row(connection, _REPLACE, *values)
        )
        return int(rows)

    @retry_transient(JOB_ATTEMPTS)
    def _run(self, action: str, work: Callable[[psycopg.Connection], _T]) -> _T:
        with open_session(self.url, LONG_RECORD, action) as connection:
            return work(connection)


def _on(statement: LiteralString, masked_field: MaskedField) -> sql.Composed:
    return sql.SQL(statement).format(
        token=sql.Identifier(masked_field.column), field=sql.Literal(masked_field.name)
    )


def _ranged(
    statement: LiteralString, masked_field: MaskedField, within: TextRange
) -> tuple[sql.Composed, list[str]]:
    """Return a statement on a range of texts, and the values of the range."""
    condition = "{token} ~>=~ %s" if within.high is None else "{token} ~>=~ %s AND {token} ~<~ %s"
    values = [within.low] if within.high is None else [within.low, within.high]
    return _on(statement.replace("{range}", condition), masked_field), values


def _copied(connection: psycopg.Connection, query: sql.Composed) -> pl.DataFrame:
    """Return the result of a query, every column as text."""
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')").format(query)
    with connection.cursor().copy(statement) as copy:
        csv = BytesIO(b"".join(copy))
    return pl.read_csv(csv, infer_schema=False)


# Byte order, independent of the collation of the database: the indexes on the tokens have the
# operators ~>=~ and ~<~.
_TOKENS = """
SELECT DISTINCT {token} FROM user_logins WHERE {range} ORDER BY {token} USING ~<~ LIMIT %s
"""

_PRESENT = "SELECT DISTINCT {token} FROM user_logins WHERE {token} = ANY(%s::text[])"

_COUNT = "SELECT count(*) FROM user_logins WHERE {range}"

_BEGIN = "SELECT job, unfinished FROM login_ingest.begin_remask_job('remask', %s, %s::bigint[])"

_FINISH = "SELECT login_ingest.finish_remask_job(%s, 'remask')"

_REPLACE = "SELECT login_ingest.replace_tokens(%s, %s::text[], %s::text[], %s)"

_GROUPS = """
SELECT {token} AS token, count(*) AS rows FROM login_ingest.user_logins_linked GROUP BY {token}
"""

_LINKS = "SELECT old_token, new_token FROM login_ingest.token_link WHERE field = {field}"

_LOADED = "SELECT coalesce(sum(loaded), 0) FROM login_ingest.batch"
