"""The rules on the tokens of a masked batch."""

from __future__ import annotations

import codecs
import hashlib
import zlib
from base64 import b16encode, b32encode, b64encode, urlsafe_b64encode
from collections.abc import Iterator
from urllib.parse import quote

import polars as pl

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.masking.token import parse_token
from fetch_mask_assets.pipeline.batch.masked_batch import (
    ROW,
    MaskedBatch,
    MaskingRule,
    Pair,
    complete,
    original_column,
    unmasks,
)
from fetch_mask_assets.pipeline.contract.login_event import MIN_REVEALING_LENGTH

DIGEST_SAMPLE = 256
"""Distinct values of each field whose digests are sought. A digest comes from the code, whatever
the value, so a sample finds it."""

MIN_LENGTH_IN_TOKEN = 12
"""Shorter forms occur in a token by chance. A token never changes: its message would be refused
each time, and its batch with it."""


def _malformed_tokens(batch: MaskedBatch) -> int:
    return sum(len(_malformed(batch.masked, masker)) for masker in batch.keyring.maskers)


def _malformed_rows(batch: MaskedBatch) -> Iterator[int]:
    for masker in batch.keyring.maskers:
        malformed = pl.col(masker.field.column).is_in(_malformed(batch.masked, masker))
        yield from batch.rows.filter(malformed)[ROW]


def _malformed(masked: pl.DataFrame, masker: FieldMasker) -> list[str]:
    tokens = complete(masked)[masker.field.column].drop_nulls().unique()
    return [token for token in tokens if not _is_well_formed(masker, token)]


def _is_well_formed(masker: FieldMasker, token: str) -> bool:
    try:
        return parse_token(masker.field, token).key_id == masker.primary_key_id
    except TokenError:
        return False


TOKENS_WELL_FORMED = MaskingRule(
    "tokens_well_formed",
    "Every token has its field's form and is under that field's primary key.",
    "Nothing was written. Compare the keysets with the key registry (fetch-mask doctor).",
    _malformed_tokens,
    _malformed_rows,
)


def _unequal_groups(batch: MaskedBatch) -> int:
    return sum(_ambiguous(pairs) for pairs in batch.pairs.values())


def _ambiguous(pairs: list[Pair]) -> int:
    """The number of pairs beyond one for each value, and beyond one for each token."""
    values = {pair.canonical for pair in pairs}
    tokens = {pair.token for pair in pairs}
    return 2 * len({pair[1:] for pair in pairs}) - len(values) - len(tokens)


EQUAL_STAYS_EQUAL = MaskingRule(
    "one_token_per_value",
    "One value has one token, and one token stands for one value.",
    "Nothing was written. The masking is not deterministic: revert the last change to it.",
    _unequal_groups,
)


def _unopened_tokens(batch: MaskedBatch) -> int:
    return sum(
        len(batch.pairs[masker.field.name])
        - len(batch.genuine[masker.field.name])
        + len(_unpaired_rows(batch, masker))
        for masker in batch.keyring.maskers
    )


def _unopened_rows(batch: MaskedBatch) -> Iterator[int]:
    if not _unopened_tokens(batch):
        return
    for masker in batch.keyring.maskers:
        original, column = original_column(masker.field), masker.field.column
        pairs = batch.pairs[masker.field.name]
        unopened = {pair[::2] for pair in pairs if not unmasks(masker, pair)}
        for row, *pair in batch.logins.select(ROW, original, column).iter_rows():
            if tuple(pair) in unopened:
                yield row
        yield from _unpaired_rows(batch, masker)


def _unpaired_rows(batch: MaskedBatch, masker: FieldMasker) -> list[int]:
    """The rows that have a token of an optional field and no value of it, or the reverse."""
    field = masker.field
    if field.is_required:
        return []
    has_value, has_token = (
        pl.col(name).is_not_null() for name in (original_column(field), field.column)
    )
    return batch.logins.filter(has_value != has_token)[ROW].to_list()


TOKENS_UNMASK = MaskingRule(
    "tokens_can_be_unmasked",
    "Every token gives its original back.",
    "Nothing was written. Compare the keysets with the key registry (fetch-mask doctor).",
    _unopened_tokens,
    _unopened_rows,
)


def _revealing_tokens(batch: MaskedBatch) -> int:
    return sum(
        _reveals(masker, pair, is_genuine=pair in batch.genuine[masker.field.name])
        for masker in batch.keyring.maskers
        for pair in batch.pairs[masker.field.name][:DIGEST_SAMPLE]
    )


def _reveals(masker: FieldMasker, pair: Pair, *, is_genuine: bool) -> bool:
    text = pair.token.removeprefix(masker.field.token_prefix)
    haystacks = [text.encode(), text.lower().encode(), *_ciphertext(masker, pair.token)]
    # In a genuine token a short form is chance; elsewhere it is a finding.
    min_length = MIN_LENGTH_IN_TOKEN if is_genuine else MIN_REVEALING_LENGTH
    return any(
        len(form) >= min_length and form in haystack
        for value in (pair.original.encode(), pair.canonical)
        for form in _unkeyed_forms(value)
        for haystack in haystacks
    )


def _ciphertext(masker: FieldMasker, token: str) -> list[bytes]:
    try:
        return [parse_token(masker.field, token).ciphertext]
    except TokenError:
        return []


def _unkeyed_forms(value: bytes) -> Iterator[bytes]:
    """The digests and encodings of a value that need no key."""
    text = value.decode("latin-1")
    for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2s"):
        digest = hashlib.new(name, value, usedforsecurity=False).digest()
        yield from (digest, digest.hex().encode(), b64encode(digest).rstrip(b"="))
        yield urlsafe_b64encode(digest).rstrip(b"=")
    yield f"{zlib.crc32(value):08x}".encode()
    yield from (value, value[::-1], value.hex().encode(), b16encode(value).lower())
    yield from (b64encode(value).rstrip(b"="), urlsafe_b64encode(value).rstrip(b"="))
    yield from (b32encode(value).rstrip(b"="), quote(text).encode())
    yield codecs.encode(text, "rot13").encode()


TOKENS_OPAQUE = MaskingRule(
    "tokens_hold_no_digest",
    "No token holds an unkeyed digest or an encoding of its value.",
    "Nothing was written. The masking is reversible without the key: revert the change.",
    _revealing_tokens,
)
