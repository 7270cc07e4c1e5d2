"""Columns of tokens: `format_token` and `parse_token` over many values at once."""

from __future__ import annotations

import polars as pl

from fetch_mask_assets.masking.canonical import BLOCK
from fetch_mask_assets.masking.fields import MAX_TOKEN_LENGTH, MaskedField
from fetch_mask_assets.masking.token import (
    MIN_CIPHERTEXT_BYTES,
    PREFIX_BYTES,
    TINK_VERSION,
    key_prefix,
)

_NOT_BASE64URL = "[^A-Za-z0-9_-]"
_PADDINGS = pl.Series(["", "===", "==", "="])
"""By the number of characters over the last four; three is not base64."""


def format_tokens(field: MaskedField, key_id: int, sealed: pl.Series) -> pl.Series:
    """The token of each sealed value under a key: the result of `format_token` for it.

    Args:
        field: the field.
        key_id: the id of the key.
        sealed: binary: the synthetic IV and the encrypted value, without Tink's prefix.
    """
    ciphertext = pl.lit(key_prefix(key_id)) + pl.col("sealed")
    plain = ciphertext.bin.encode("base64").str.strip_chars_end("=")
    url = plain.str.replace_all("+", "-", literal=True).str.replace_all("/", "_", literal=True)
    return sealed.to_frame("sealed").select(pl.lit(field.token_prefix) + url).to_series()


def parse_tokens(field: MaskedField, texts: pl.Series) -> pl.DataFrame:
    """The key id and the sealed value of each token, as `parse_token` gives them.

    Returns:
        The columns `key_id` and `sealed`, null for a text that `parse_token` refuses.
    """
    parsed = texts.to_frame("text").select(ciphertext=_decoded(field))
    token = pl.when(_has_form()).then("ciphertext")
    key_id = token.bin.slice(1, PREFIX_BYTES - 1)
    return parsed.select(
        key_id=key_id.bin.reinterpret(dtype=pl.UInt32, endianness="big"),
        sealed=token.bin.slice(PREFIX_BYTES),
    )


def _decoded(field: MaskedField) -> pl.Expr:
    """The bytes behind the prefix; null for another prefix, and for a text that is not base64url.

    Polars refuses all spellings of the same bytes but one.
    """
    text = pl.col("text")
    encoded = text.str.strip_prefix(field.token_prefix)
    is_base64 = (
        text.str.starts_with(field.token_prefix)
        & (text.str.len_chars() <= MAX_TOKEN_LENGTH)
        & ~encoded.str.contains(_NOT_BASE64URL)
    )
    plain = encoded.str.replace_all("-", "+", literal=True).str.replace_all("_", "/", literal=True)
    padded = plain + pl.lit(_PADDINGS).gather(plain.str.len_bytes() % len(_PADDINGS))
    return pl.when(is_base64).then(padded).str.decode("base64", strict=False)


def _has_form() -> pl.Expr:
    """Return whether bytes have the length and the version of a ciphertext, as in `parse_token`."""
    ciphertext = pl.col("ciphertext")
    over = ciphertext.bin.size().cast(pl.Int64) - MIN_CIPHERTEXT_BYTES
    return (over >= 0) & (over % BLOCK == 0) & ciphertext.bin.starts_with(bytes([TINK_VERSION]))
