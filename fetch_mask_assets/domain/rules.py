"""The rules that a masked batch must keep, as data.

One tuple gives the asset checks their specs and their results, and the write path its refusal,
so that none of them can disagree with another.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import zlib
from base64 import b16encode, b32encode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import polars as pl

from fetch_mask_assets.domain.batch import MASKED_SCHEMA
from fetch_mask_assets.domain.errors import TokenError
from fetch_mask_assets.domain.keyset import FieldMasker, Keyring
from fetch_mask_assets.domain.login_event import SHORTEST_TELLING_PART
from fetch_mask_assets.domain.masked_field import MASKED_FIELDS
from fetch_mask_assets.domain.token import parse_token

DIGEST_SAMPLE = 256
"""Distinct values of each field whose digests are looked for; digests are the code's, not the
values', so a few tell of all."""


@dataclass(frozen=True, slots=True)
class MaskedBatch:
    """What the rules look at: the raw and the masked frame of one batch, and the keys."""

    raw: pl.DataFrame
    masked: pl.DataFrame
    keyring: Keyring


@dataclass(frozen=True, slots=True)
class MaskingRule:
    """A rule: its name, what it says, what to do when it is broken, and how often it is."""

    name: str
    says: str
    remedy: str
    count_broken: Callable[[MaskedBatch], int]


def broken_rules(batch: MaskedBatch) -> dict[str, int]:
    """The rules that a batch breaks, with how many lines, tokens or values break each."""
    counts = {rule.name: rule.count_broken(batch) for rule in MASKING_RULES}
    return {name: count for name, count in counts.items() if count}


def _unaccounted(batch: MaskedBatch) -> int:
    received: list[str] = batch.raw["message_id"].to_list()
    kept: list[str] = batch.masked["message_id"].to_list()
    strangers = sum(one != other for one, other in zip(received, kept, strict=False))
    is_login = pl.all_horizontal(pl.col(field.column).is_not_null() for field in MASKED_FIELDS)
    is_reject = pl.col("reason").is_not_null() & pl.col("sealed_body").is_not_null()
    neither_or_both = batch.masked.filter(is_login == is_reject).height
    return abs(len(received) - len(kept)) + strangers + neither_or_both


def _foreign_columns(batch: MaskedBatch) -> int:
    kept = dict(batch.masked.schema)
    return len(kept.items() ^ dict(MASKED_SCHEMA).items())


def _raw_values(batch: MaskedBatch) -> int:
    texts = [name for name, kind in batch.masked.schema.items() if kind == pl.String]
    lines = _logins(batch)
    return sum(
        lines.filter(_repeats(pl.col(text), pl.col(f"original_{field.name}"))).height
        for field in MASKED_FIELDS
        for text in texts
    )


def _repeats(clear: pl.Expr, masked: pl.Expr) -> pl.Expr:
    telling = masked.str.len_chars() >= SHORTEST_TELLING_PART
    return (clear == masked) | (telling & clear.str.contains(masked, literal=True))


def _logins(batch: MaskedBatch) -> pl.DataFrame:
    """The masked logins with what they were made of, read from the bodies a second way."""
    logins = batch.masked.with_columns(body=batch.raw["body"]).filter(pl.col("reason").is_null())
    events = [json.loads(body) for body in logins["body"]]
    originals = [
        pl.Series(f"original_{field.name}", [event[field.name] for event in events], pl.String)
        for field in MASKED_FIELDS
    ]
    return logins.drop("body").with_columns(originals)


def _malformed_tokens(batch: MaskedBatch) -> int:
    return sum(
        not _is_well_formed(masker, token)
        for masker in batch.keyring.maskers
        for token in _distinct(batch.masked[masker.field.column])
    )


def _is_well_formed(masker: FieldMasker, token: str) -> bool:
    try:
        return parse_token(masker.field, token).key_id == masker.primary_key_id
    except TokenError:
        return False


def _unequal_groups(batch: MaskedBatch) -> int:
    logins = _logins(batch)
    return sum(_ambiguous(*_pairs(logins, masker)) for masker in batch.keyring.maskers)


def _ambiguous(values: list[bytes], tokens: list[str]) -> int:
    """How many more pairs there are than values, and than tokens: 0 if it is one to one."""
    pairs = len(set(zip(values, tokens, strict=True)))
    return 2 * pairs - len(set(values)) - len(set(tokens))


def _pairs(logins: pl.DataFrame, masker: FieldMasker) -> tuple[list[bytes], list[str]]:
    field = masker.field
    distinct = logins.select(f"original_{field.name}", field.column).unique(maintain_order=True)
    originals, tokens = (column.to_list() for column in distinct.iter_columns())
    return [field.canonical(original) for original in originals], tokens


def _unopened_tokens(batch: MaskedBatch) -> int:
    logins = _logins(batch)
    return sum(
        not _unmasks_to(masker, token, value)
        for masker in batch.keyring.maskers
        for value, token in zip(*_pairs(logins, masker), strict=True)
    )


def _unmasks_to(masker: FieldMasker, token: str, value: bytes) -> bool:
    try:
        return masker.field.canonical(masker.unmask(token)) == value
    except TokenError:
        return False


def _telling_tokens(batch: MaskedBatch) -> int:
    logins = _logins(batch)
    return sum(
        _tells(token, original, masker)
        for masker in batch.keyring.maskers
        for original, token in logins.select(f"original_{masker.field.name}", masker.field.column)
        .unique(maintain_order=True)
        .head(DIGEST_SAMPLE)
        .iter_rows()
    )


def _tells(token: str, original: str, masker: FieldMasker) -> bool:
    haystacks = [token.encode(), token.lower().encode(), *_opened(token, masker)]
    plain = (original.encode(), masker.field.canonical(original))
    return any(
        len(form) >= SHORTEST_TELLING_PART and form in haystack
        for value in plain
        for form in _unkeyed_forms(value)
        for haystack in haystacks
    )


def _opened(token: str, masker: FieldMasker) -> list[bytes]:
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


def _distinct(column: pl.Series) -> list[str]:
    return column.drop_nulls().unique().to_list()


MASKING_RULES = (
    MaskingRule(
        "every_message_accounted_for",
        "Each message received is one line: a masked login, or a reason with the sealed body.",
        "Nothing was written; the messages are back on the queue. This is a defect of the"
        " pipeline: stop the sensor and report it.",
        _unaccounted,
    ),
    MaskingRule(
        "no_foreign_column",
        "The masked frame has the columns of its schema and no others.",
        "Nothing was written. A change to the masking added, lost or retyped a column: revert it.",
        _foreign_columns,
    ),
    MaskingRule(
        "no_raw_value",
        "No text of a masked login is, or holds, its own IP or device id.",
        "Nothing was written. A change to the contract or the masking lets raw values through:"
        " revert it.",
        _raw_values,
    ),
    MaskingRule(
        "tokens_well_formed",
        "Every token has its field's form and is under that field's primary key.",
        "Nothing was written. Compare the keysets with the key registry (fetch-mask doctor).",
        _malformed_tokens,
    ),
    MaskingRule(
        "equal_stays_equal",
        "One value has one token, and one token stands for one value.",
        "Nothing was written. The masking is not deterministic: revert the last change to it.",
        _unequal_groups,
    ),
    MaskingRule(
        "tokens_unmask",
        "Every token gives its original back.",
        "Nothing was written. Compare the keysets with the key registry (fetch-mask doctor).",
        _unopened_tokens,
    ),
    MaskingRule(
        "tokens_tell_nothing",
        "No token holds an unkeyed digest or an encoding of its value.",
        "Nothing was written. The masking is reversible without the key: revert the change.",
        _telling_tokens,
    ),
)
