"""A quick search over columns for the rows in which `repeats` may be true."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

# The white space of ASCII, by Python's str.strip.
_WHITE_SPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f "

# Found in every text in which `addresses_in` finds an address. It begins with a character that most
# texts lack, so the search is quick.
_LIKE_ADDRESS = r":[0-9A-Fa-f.]*:|\.[0-9]{1,3}\.[0-9]{1,3}\."


def may_repeat(clear: Iterable[str], masked: Iterable[str]) -> pl.Expr:
    """True for each row in which `repeats` is true for a clear text and a masked value.

    It is true for some other rows too: those with a short value inside a text, with a text that
    looks like an address, and with a text that is not ASCII.

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
    """Return whether texts are not ASCII: they may differ in more than case and spaces."""
    return texts.str.len_bytes() != texts.str.len_chars()
