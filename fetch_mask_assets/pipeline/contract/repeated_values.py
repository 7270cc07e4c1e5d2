"""The search for rows that `repeats` may find, over columns."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

# Of ASCII alone, as Python's str.strip has it.
_WHITE_SPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f "

# In every text in which `addresses_in` finds an address. It begins with a character that most
# texts lack, so that the search for it ends soon.
_LIKE_ADDRESS = r":[0-9A-Fa-f.]*:|\.[0-9]{1,3}\.[0-9]{1,3}\."


def may_repeat(clear: Iterable[str], masked: Iterable[str]) -> pl.Expr:
    """False for the rows in which `repeats` is false for each clear text and masked value.

    It is true for some of those rows too: where a short value stands in a text by chance, where a
    text looks like an address, and where one is not ASCII.

    Args:
        clear: the columns of clear texts.
        masked: the columns of masked values.
    """
    texts = pl.concat_str(clear, separator="\n", ignore_nulls=True).str.to_lowercase()
    return pl.any_horizontal(
        _is_foreign(texts),
        texts.str.contains(_LIKE_ADDRESS),
        *(_may_hold(texts, pl.col(name)) for name in masked),
    )


def _may_hold(texts: pl.Expr, value: pl.Expr) -> pl.Expr:
    plain = value.str.to_lowercase().str.strip_chars(_WHITE_SPACE)
    return (_is_foreign(value) | texts.str.contains(plain, literal=True)).fill_null(value=False)


def _is_foreign(texts: pl.Expr) -> pl.Expr:
    """Return whether texts are not ASCII: more than case and spaces may then differ."""
    return texts.str.len_bytes() != texts.str.len_chars()
