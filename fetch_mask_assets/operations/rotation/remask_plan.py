"""Plan the re-masking of tokens: their replacements and links, and the tokens that do not open.

A link joins two tokens of one value. Readers who follow the links see rows with old tokens and
rows with new tokens as equal at every moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.links import TokenLink, links_of
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.masking.canonical_columns import canonical_column
from fetch_mask_assets.masking.token import parse_token

NOT_A_TOKEN = "not_a_token"  # noqa: S105 (the name of a reason)
UNKNOWN_KEY = "unknown_key"
ALTERED = "altered"


@dataclass(frozen=True, slots=True)
class RemaskPlan:
    """The replacements of old tokens, the links to write first, and unopened tokens by reason."""

    replacements: Mapping[str, str]
    links: tuple[TokenLink, ...]
    unopened: Mapping[str, int]


def plan_remask(masker: FieldMasker, tokens: Iterable[str]) -> RemaskPlan:
    """Plan the re-masking of distinct tokens of a field under the primary key.

    Tokens that do not open are counted by reason and have no replacement.

    Raises:
        KeysetError: Tink gives another result for a value of the sample.
    """
    originals, unopened = _open(masker, tokens)
    values = pl.Series(list(originals.values()), dtype=pl.String)
    newest = zip(originals, masker.mask_column(values), strict=True)
    links = links_of(masker, canonical_column(masker.field.form, values.unique()))
    return RemaskPlan({old: new for old, new in newest if old != new}, tuple(links), unopened)


def count_unopened(masker: FieldMasker, tokens: Iterable[str]) -> Mapping[str, int]:
    """Count the tokens that do not open, by reason."""
    return _open(masker, tokens)[1]


def _open(masker: FieldMasker, tokens: Iterable[str]) -> tuple[dict[str, str], Counter[str]]:
    originals: dict[str, str] = {}
    unopened: Counter[str] = Counter()
    for token in tokens:
        try:
            originals[token] = masker.unmask(token)
        except TokenError:
            unopened[_reason(masker, token)] += 1
    return originals, unopened


def _reason(masker: FieldMasker, token: str) -> str:
    try:
        key_id = parse_token(masker.field, token).key_id
    except TokenError:
        return NOT_A_TOKEN
    return ALTERED if key_id in masker.check_values else UNKNOWN_KEY
