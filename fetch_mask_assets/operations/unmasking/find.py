"""The tokens that a known value may have in the table: one for each key that was not retired."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.keyset import FieldMasker
from fetch_mask_assets.masking.canonical import MAX_TEXT_BYTES, TEXT


class FindRefusedError(FetchMaskError):
    """A value cannot be looked for; names its line and never the value."""


@dataclass(frozen=True, slots=True)
class FindQuery:
    """A value by the number of its line, and its tokens."""

    line: int
    tokens: tuple[str, ...]

    def count(self, counts: Mapping[str, int]) -> int:
        """How many rows hold the value, given those of each token."""
        return sum(counts[token] for token in self.tokens)


def find_queries(masker: FieldMasker, values: Iterable[str], limit: int) -> tuple[FindQuery, ...]:
    """The tokens of each value under every enabled key; empty lines are left out.

    Raises:
        FindRefusedError: a line is no value of the field, there is none, or too many.
    """
    found = tuple(
        FindQuery(number, _tokens(masker, number, value))
        for number, value in enumerate(values, start=1)
        if value
    )
    if not found:
        raise FindRefusedError("no value was given: one a line, on standard input.")
    if len(found) > limit:
        raise FindRefusedError(
            f"more than {limit} values were given: give fewer, or raise LOGIN_UNMASK_LIMIT."
        )
    return found


def _tokens(masker: FieldMasker, line: int, value: str) -> tuple[str, ...]:
    _refuse_impossible(masker, line, value)
    try:
        return tuple(masker.mask_under(key_id, value) for key_id in masker.check_values)
    except ValueError:
        raise FindRefusedError(f"line {line} is no {masker.field.name}.") from None


def _refuse_impossible(masker: FieldMasker, line: int, value: str) -> None:
    if masker.field.form is TEXT and (not value.strip() or len(value.encode()) > MAX_TEXT_BYTES):
        raise FindRefusedError(
            f"line {line} is blank or longer than {MAX_TEXT_BYTES} bytes:"
            f" no {masker.field.label} is."
        )
