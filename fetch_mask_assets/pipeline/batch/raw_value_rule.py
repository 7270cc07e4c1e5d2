"""The rule that no text of a masked login is or holds a raw value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

from fetch_mask_assets.masking.canonical import IP_ADDRESS
from fetch_mask_assets.masking.fields import MASKED_FIELDS, MaskedField
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch, MaskingRule
from fetch_mask_assets.pipeline.batch.original_values import original_column
from fetch_mask_assets.pipeline.contract.login_event import MIN_REVEALING_LENGTH, repeats
from fetch_mask_assets.pipeline.contract.ordinary_bodies import ROW

LOGINS_IN_PART = 10_000


def _raw_values(batch: MaskedBatch) -> int:
    return len(_raw_value_rows(batch))


def _raw_value_rows(batch: MaskedBatch) -> list[int]:
    """The row of each raw value that is found."""
    # SQS makes the message id, so it repeats a value by chance only.
    texts = [
        name
        for name, kind in batch.masked.schema.items()
        if kind == pl.String and name != "message_id"
    ]
    # In parts, because the texts are put together, and in lower case too.
    parts = batch.logins.iter_slices(LOGINS_IN_PART)
    found = [part.filter(_may_hold_raw_value(part, texts)) for part in parts]
    likely = pl.concat(found or [batch.logins])
    if likely.is_empty():
        return []
    return [
        row for text in texts for row in _raw_values_in(_suspect_rows(batch, likely, text), text)
    ]


def _may_hold_raw_value(logins: pl.DataFrame, texts: Iterable[str]) -> pl.Series:
    """Return whether a text may be or hold a raw value: true for each row in which one does.

    It is true for some other rows too. The exact search, which is slower, is for these rows alone.
    """
    originals = map(original_column, MASKED_FIELDS)
    lines = pl.concat_str(map(_bare, texts), separator="\n", ignore_nulls=True)
    found = [test for field in MASKED_FIELDS for test in _tests(field)]
    return logins.select(*originals, lines=lines).select(pl.any_horizontal(found)).to_series()


def _tests(field: MaskedField) -> Iterator[pl.Expr]:
    lines, original = pl.col("lines"), pl.col(original_column(field))
    yield lines.str.contains(original, literal=True)
    if field.form is IP_ADDRESS:
        yield lines.str.to_lowercase().str.contains(original.str.to_lowercase(), literal=True)
        yield lines.str.contains(_END_OF_ADDRESS)


# Found in every line that is an address. It begins with a character that most texts lack, so the
# search is quick.
_END_OF_ADDRESS = r"(?m)(?::|\.[0-9a-fA-F]*\.[0-9a-fA-F]*\.)[0-9a-fA-F:.]*$"


def _bare(text: str) -> pl.Expr:
    """The texts of a column; of a column of tokens without the prefix of their field."""
    prefixes = [field.token_prefix for field in MASKED_FIELDS if text == field.column]
    return pl.col(text).str.strip_prefix(*prefixes) if prefixes else pl.col(text)


def _suspect_rows(batch: MaskedBatch, logins: pl.DataFrame, text: str) -> pl.DataFrame:
    """The logins whose text may be a raw value; tokens without the prefix of their field.

    A token that opens to its value is no raw value, whatever it repeats: a sender who has seen a
    token could otherwise send a piece of it as a value, and have the whole batch refused for ever.
    """
    for field in MASKED_FIELDS:
        if text == field.column:
            genuine = batch.pairs[field.name].filter("is_genuine")["token"].implode()
            return logins.filter(~pl.col(text).is_in(genuine)).with_columns(_bare(text))
    return logins


def _raw_values_in(rows: pl.DataFrame, text: str) -> Iterator[int]:
    for field in MASKED_FIELDS:
        yield from rows.filter(_repeats(text, field))[ROW]
        if field.form is IP_ADDRESS:
            yield from _respelled(rows, text, field)


def _respelled(rows: pl.DataFrame, text: str, field: MaskedField) -> list[int]:
    """The rows whose text is their address in another spelling."""
    similar = rows.filter(
        pl.col(text).str.contains(r"^[0-9a-fA-F:.]*[:.][0-9a-fA-F:.]*$"), ~_repeats(text, field)
    )
    columns = similar.select(ROW, text, original_column(field))
    return [row for row, clear, masked in columns.iter_rows() if repeats(clear, masked)]


def _repeats(text: str, field: MaskedField) -> pl.Expr:
    clear, masked = pl.col(text), pl.col(original_column(field))
    is_revealing = masked.str.len_chars() >= MIN_REVEALING_LENGTH
    return (clear == masked) | (is_revealing & clear.str.contains(masked, literal=True))


NO_RAW_VALUE = MaskingRule(
    "no_raw_value",
    "No text of a masked login is, or holds, a value of its own that is to be masked.",
    "Nothing was written. A change to the contract or the masking lets raw values through: revert"
    " it.",
    _raw_values,
    _raw_value_rows,
)
