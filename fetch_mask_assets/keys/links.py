"""Links between tokens of one value under different keys.

A link joins two tokens of a field that stand for one value. Through the links, rows under the old
key and rows under the new key are equal at every moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.masker import FieldMasker


@dataclass(frozen=True, slots=True)
class TokenLink:
    """A token under an older key, and the token of the same value under the newest one."""

    field: str
    old_token: str
    new_token: str


def batch_links(masked: pl.DataFrame, keyring: Keyring) -> tuple[TokenLink, ...]:
    """The links of a masked batch's values; none while each keyset has one key.

    Other workers may have written the same values under older keysets, or may still do so.

    Raises:
        TokenError: a token does not open.
        KeysetError: Tink gives another result for a token or value of the sample.
    """
    return tuple(
        link
        for masker in keyring.maskers
        if _other_keys(masker)
        for link in links_of(masker, _opened(masker, masked[masker.field.column]))
    )


def links_of(masker: FieldMasker, canonical: pl.Series) -> Iterator[TokenLink]:
    """The links of distinct values: from the token under each other enabled key to the newest.

    Raises:
        KeysetError: Tink gives another token for a value of the sample.
    """
    newest = masker.encrypt_column(masker.primary_key_id, canonical)
    for key_id in _other_keys(masker):
        old_tokens = masker.encrypt_column(key_id, canonical)
        for old, new in zip(old_tokens, newest, strict=True):
            yield TokenLink(masker.field.name, old, new)


def _opened(masker: FieldMasker, tokens: pl.Series) -> pl.Series:
    canonical = masker.open_column(tokens.drop_nulls().unique())["canonical"]
    if canonical.has_nulls():
        raise TokenError(f"a token of {masker.field.name} does not open, so it has no links.")
    return canonical.unique()


def _other_keys(masker: FieldMasker) -> list[int]:
    return [key_id for key_id in masker.check_values if key_id != masker.primary_key_id]
