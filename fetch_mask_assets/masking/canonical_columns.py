"""Columns of canonical forms: `CanonicalForm.to_bytes` over many texts at once."""

from __future__ import annotations

from collections.abc import Callable
from socket import AF_INET6, inet_pton

import polars as pl

from fetch_mask_assets.masking.addresses import V4_MAPPED, packed
from fetch_mask_assets.masking.canonical import (
    BLOCK,
    END_OF_TEXT,
    IP_ADDRESS,
    MAX_TEXT_BYTES,
    TEXT,
    CanonicalForm,
)

# In the syntax of Polars (Rust's regex): addresses that `pack_ip` takes, in their usual spellings.
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_DOTTED_QUAD = rf"^(?:{_OCTET}\.){{3}}{_OCTET}$"
_GROUP = "[0-9A-Fa-f]{1,4}"
_GROUPS = 8
_UNCOMPRESSED = rf"^{_GROUP}(?::{_GROUP}){{{_GROUPS - 1}}}$"
_COMPRESSED = rf"^(?:{_GROUP}(?::{_GROUP})*)?::(?:{_GROUP}(?::{_GROUP})*)?$"

_PADDINGS = pl.Series([END_OF_TEXT.ljust(BLOCK - over, b"\0") for over in range(BLOCK)])
"""By the number of bytes of a text that are over its last whole block."""


def canonical_column(form: CanonicalForm, texts: pl.Series) -> pl.Series:
    """The canonical bytes of each text, as binary; null for one that `form.to_bytes` refuses."""
    return _COLUMNS[form](texts)


def column_check(form: CanonicalForm, texts: pl.Series) -> pl.Series:
    """Return whether `form.check` takes each text; true for null."""
    return _CHECKS[form](texts)


def are_ips(texts: pl.Series) -> pl.Series:
    """Return whether `pack_ip` takes each text; true for null."""
    distinct = texts.drop_nulls().unique()
    refused = distinct.filter(pack_ips(distinct).is_null())
    return ~texts.is_in(refused.implode()).fill_null(value=False)


def check_texts(texts: pl.Series) -> pl.Series:
    """Return whether `check_text` takes each text; true for null."""
    return (texts.str.len_bytes() <= MAX_TEXT_BYTES).fill_null(value=True)


def pack_ips(texts: pl.Series) -> pl.Series:
    """The result of `pack_ip` for each text, as binary; null for a text that is not an address."""
    is_quad = texts.str.contains(_DOTTED_QUAD).fill_null(value=False)
    quads, others = texts.filter(is_quad), texts.filter(~is_quad)
    rows = pl.concat([is_quad.arg_true(), (~is_quad).arg_true()])
    return pl.concat([_pack_quads(quads), _pack_each(others)]).gather(rows.arg_sort())


def pad_texts(texts: pl.Series) -> pl.Series:
    """The result of `pad_text` for each text, as binary."""
    return texts.cast(pl.Binary) + _PADDINGS.gather(texts.str.len_bytes() % BLOCK)


def _pack_quads(quads: pl.Series) -> pl.Series:
    octets = quads.str.split(".").cast(pl.List(pl.UInt8)).cast(pl.Binary)
    return pl.select(pl.lit(V4_MAPPED) + octets).to_series()


def _pack_each(texts: pl.Series) -> pl.Series:
    if texts.is_empty():
        return pl.Series(dtype=pl.Binary)
    groups = texts.str.count_matches("[0-9A-Fa-f]+")
    is_compressed = texts.str.contains(_COMPRESSED) & (groups < _GROUPS)
    is_hexadecimal = is_compressed | texts.str.contains(_UNCOMPRESSED)
    results = [
        inet_pton(AF_INET6, text) if is_known else _packed_or_none(text)
        for text, is_known in zip(texts, is_hexadecimal, strict=True)
    ]
    return pl.Series(results, dtype=pl.Binary)


def _packed_or_none(text: str | None) -> bytes | None:
    return None if text is None else next(iter(packed(text)), None)


_COLUMNS: dict[CanonicalForm, Callable[[pl.Series], pl.Series]] = {
    IP_ADDRESS: pack_ips,
    TEXT: pad_texts,
}

_CHECKS: dict[CanonicalForm, Callable[[pl.Series], pl.Series]] = {
    IP_ADDRESS: are_ips,
    TEXT: check_texts,
}
