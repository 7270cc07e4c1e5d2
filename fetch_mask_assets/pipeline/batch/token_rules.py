"""The rules on the tokens of a masked batch."""

from __future__ import annotations

import codecs
import hashlib
import zlib
from base64 import b32encode, b64encode
from collections.abc import Iterator
from urllib.parse import quote

import polars as pl

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.masking.fields import MASKED_FIELDS, MaskedField
from fetch_mask_assets.masking.token import parse_token
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch, MaskingRule
from fetch_mask_assets.pipeline.batch.original_values import original_column
from fetch_mask_assets.pipeline.contract.login_event import MIN_REVEALING_LENGTH
from fetch_mask_assets.pipeline.contract.ordinary_bodies import ROW

DIGEST_SAMPLE = 256
"""The number of each field's distinct values whose digests are sought in their tokens, of those
that their token does not open to. Code that writes a digest does so for every value, so a sample
finds it."""

GENUINE_DIGEST_SAMPLE = 64
"""As `DIGEST_SAMPLE`, for values that their token opens to: the cipher made these tokens."""

MIN_LENGTH_IN_TOKEN = 12
"""Shorter forms occur in a genuine token by chance. A value has the same token each time, so its
message, and each batch with it, would always be refused."""


def _malformed_tokens(batch: MaskedBatch) -> int:
    return sum(_malformed(batch, masker).len() for masker in batch.keyring.maskers)


def _malformed_rows(batch: MaskedBatch) -> Iterator[int]:
    for masker in batch.keyring.maskers:
        is_malformed = pl.col(masker.field.column).is_in(_malformed(batch, masker).implode())
        yield from batch.rows.filter(is_malformed)[ROW]


def _malformed(batch: MaskedBatch, masker: FieldMasker) -> pl.Series:
    tokens = batch.tokens[masker.field.name]
    return tokens.filter(pl.col("key_id").ne_missing(masker.primary_key_id))["token"]


TOKENS_WELL_FORMED = MaskingRule(
    "tokens_well_formed",
    "Every token has its field's form and is under that field's primary key.",
    "Nothing was written. Compare the keysets with the key registry (fetch-mask doctor).",
    _malformed_tokens,
    _malformed_rows,
)


def _unequal_groups(batch: MaskedBatch) -> int:
    return sum(_ambiguous(pairs) for pairs in batch.pairs.values())


def _ambiguous(pairs: pl.DataFrame) -> int:
    """The number of pairs beyond one for each value, and beyond one for each token."""
    distinct = pairs.select("canonical", "token").unique()
    return 2 * distinct.height - distinct["canonical"].n_unique() - distinct["token"].n_unique()


EQUAL_STAYS_EQUAL = MaskingRule(
    "one_token_per_value",
    "One value has one token, and one token stands for one value.",
    "Nothing was written. The masking is not deterministic: revert the last change to it.",
    _unequal_groups,
)


def _unopened_tokens(batch: MaskedBatch) -> int:
    return sum(
        _unopened(batch, field).height + len(_unpaired_rows(batch, field))
        for field in MASKED_FIELDS
    )


def _unopened_rows(batch: MaskedBatch) -> Iterator[int]:
    for field in MASKED_FIELDS:
        pair = (original_column(field), field.column)
        unopened = _unopened(batch, field).select("original", "token")
        yield from batch.logins.join(unopened, how="semi", left_on=pair, right_on=unopened.columns)[
            ROW
        ]
        yield from _unpaired_rows(batch, field)


def _unopened(batch: MaskedBatch, field: MaskedField) -> pl.DataFrame:
    return batch.pairs[field.name].filter(~pl.col("is_genuine"))


def _unpaired_rows(batch: MaskedBatch, field: MaskedField) -> list[int]:
    """The rows that have a token of an optional field and no value of it, or the reverse."""
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
        _reveals(field, **pair)
        for field in MASKED_FIELDS
        for pair in _sample(batch.pairs[field.name]).iter_rows(named=True)
    )


def _sample(pairs: pl.DataFrame) -> pl.DataFrame:
    genuine = pairs.filter("is_genuine").head(GENUINE_DIGEST_SAMPLE)
    return pl.concat([pairs.filter(~pl.col("is_genuine")).head(DIGEST_SAMPLE), genuine])


def _reveals(
    field: MaskedField, *, original: str, canonical: bytes, token: str, is_genuine: bool
) -> bool:
    text = token.removeprefix(field.token_prefix)
    # Joined, so that each form is searched for once. UTF-8 has no byte 0xFF, so no form of a text
    # spans two of the three.
    haystack = b"\xff".join((text.encode(), text.lower().encode(), _ciphertext(field, token)))
    min_length = MIN_LENGTH_IN_TOKEN if is_genuine else MIN_REVEALING_LENGTH
    return any(
        form in haystack and len(form) >= min_length
        for value in (original.encode(), canonical)
        for form in _unkeyed_forms(value)
    )


def _ciphertext(field: MaskedField, token: str) -> bytes:
    try:
        return parse_token(field, token).ciphertext
    except TokenError:
        return b""


def _unkeyed_forms(value: bytes) -> Iterator[bytes]:
    """The digests and encodings of a value that need no key."""
    text = value.decode("latin-1")
    for digest in (new(value, usedforsecurity=False).digest() for new in _DIGESTS):
        yield from (digest, digest.hex().encode(), *_base64(digest))
    yield f"{zlib.crc32(value):08x}".encode()
    yield from (value, value[::-1], value.hex().encode(), *_base64(value))
    yield from (b32encode(value).rstrip(b"="), quote(text).encode())
    yield codecs.encode(text, "rot13").encode()


def _base64(value: bytes) -> Iterator[bytes]:
    plain = b64encode(value).rstrip(b"=")
    yield plain
    if (url := plain.translate(_TO_URL)) != plain:
        yield url


_DIGESTS = (
    hashlib.md5,
    hashlib.sha1,
    hashlib.sha224,
    hashlib.sha256,
    hashlib.sha384,
    hashlib.sha512,
    hashlib.sha3_256,
    hashlib.blake2s,
)
_TO_URL = bytes.maketrans(b"+/", b"-_")


TOKENS_OPAQUE = MaskingRule(
    "tokens_hold_no_digest",
    "No token holds an unkeyed digest or an encoding of its value.",
    "Nothing was written. The masking is reversible without the key: revert the change.",
    _revealing_tokens,
)
