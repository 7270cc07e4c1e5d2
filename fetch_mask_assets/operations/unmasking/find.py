"""Finding the rows of known values: their tokens under each enabled key, and the rows found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.masking.canonical import MAX_TEXT_BYTES, TEXT


class FindRefusedError(FetchMaskError):
    """A value cannot be searched for; names its line, never the value."""


@dataclass(frozen=True, slots=True)
class FindQuery:
    """A value, by the number of its input line, as its tokens."""

    line: int
    tokens: tuple[str, ...]

    def row_count(self, counts: Mapping[str, int]) -> int:
        """The rows of the value, from the rows of each token."""
        return sum(counts[token] for token in self.tokens)


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row of `user_logins` by its clear columns, and the token that matched; days as ISO."""

    token: str
    columns: Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class FindResult:
    """The number of rows of each token, and the newest of these rows."""

    counts: dict[str, int]
    rows: tuple[FoundRow, ...]

    @property
    def omitted_rows(self) -> int:
        """The number of rows that were counted and are not among `rows`."""
        return sum(self.counts.values()) - len(self.rows)


def find_queries(masker: FieldMasker, values: Iterable[str], limit: int) -> tuple[FindQuery, ...]:
    """The tokens of each value under every enabled key; empty lines are left out.

    Raises:
        FindRefusedError: a line is not a value of the field, or there are no values or too many.
    """
    queries = tuple(
        FindQuery(number, _tokens(masker, number, value))
        for number, value in enumerate(values, start=1)
        if value
    )
    if not queries:
        raise FindRefusedError("no values were given. Give one per line on standard input.")
    if len(queries) > limit:
        raise FindRefusedError(
            f"more than {limit} values were given. Give fewer, or raise LOGIN_MAX_RECOVERY_VALUES."
        )
    return queries


def distinct_tokens(queries: Iterable[FindQuery]) -> list[str]:
    """The tokens of all queries, each once, sorted."""
    return sorted({token for query in queries for token in query.tokens})


def line_of(row: FoundRow, queries: Sequence[FindQuery]) -> int:
    """The number of the first input line whose value the row has."""
    return next(query.line for query in queries if row.token in query.tokens)


def _tokens(masker: FieldMasker, line: int, value: str) -> tuple[str, ...]:
    _refuse_impossible(masker, line, value)
    try:
        return tuple(masker.mask_under(key_id, value) for key_id in masker.check_values)
    except ValueError:
        raise FindRefusedError(f"line {line} is not a valid {masker.field.name}.") from None


def _refuse_impossible(masker: FieldMasker, line: int, value: str) -> None:
    if masker.field.form is TEXT and (not value.strip() or len(value.encode()) > MAX_TEXT_BYTES):
        raise FindRefusedError(
            f"line {line} is not a {masker.field.label}: it is blank or longer than"
            f" {MAX_TEXT_BYTES} bytes."
        )
