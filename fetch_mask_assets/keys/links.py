"""Links between tokens of one value under different keys.

A link says that two tokens of a field stand for one value. Through the links, rows under the old
key and rows under the new key are equal at every moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

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
    """
    return tuple(
        link
        for masker in keyring.maskers
        if _other_keys(masker)
        for token in masked[masker.field.column].drop_nulls().unique()
        for link in links_of(masker, masker.unmask(token))
    )


def links_of(masker: FieldMasker, value: str) -> Iterator[TokenLink]:
    """The links of a value: from its token under each other enabled key to its newest token."""
    newest = masker.mask(value)
    for key_id in _other_keys(masker):
        yield TokenLink(masker.field.name, masker.mask_under(key_id, value), newest)


def _other_keys(masker: FieldMasker) -> list[int]:
    return [key_id for key_id in masker.check_values if key_id != masker.primary_key_id]
