"""Decodes, masks and checks value by value: the strict contract, Tink, and each rule once.

The baseline of `mask_and_check`, with the product's rules on logins: each token is well formed and
opens to its value, equal values have equal tokens and different values different ones, no original
is in a column, and the tokens of a sample hold no digest of their values. The result is a frame.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b32encode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import polars as pl

from benchmarks.contenders import settings
from benchmarks.contenders.raw_batches import raw_batches
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.masking.token import parse_token
from fetch_mask_assets.pipeline.batch.token_rules import GENUINE_DIGEST_SAMPLE
from fetch_mask_assets.pipeline.contract.login_event import LoginEvent, decode_login_event

_CLEAR = ("user_id", "device_type", "locale", "app_version")
_DIGESTS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2s")


def rounds() -> Iterator[Callable[[], int]]:
    """A new batch at a time."""
    keyring = settings.keyring()
    for raw in raw_batches():
        yield partial(_mask_by_value, raw, keyring)


def _mask_by_value(raw: pl.DataFrame, keyring: Keyring) -> int:
    events = [_event(body) for body in raw["body"]]
    columns: dict[str, Iterable[object]] = {
        name: [event.values[name] for event in events] for name in _CLEAR
    }
    for masker in keyring.maskers:
        values = [str(event.values[masker.field.name]) for event in events]
        tokens = {value: masker.mask(value) for value in set(values)}
        columns[masker.field.column] = [tokens[value] for value in values]
    masked = raw.select("message_id", "sent_at", "receive_count").with_columns(
        pl.Series(name, column) for name, column in columns.items()
    )
    _check(raw, masked, keyring.maskers)
    return masked.height


def _event(body: str) -> LoginEvent:
    event = decode_login_event(body)
    if not isinstance(event, LoginEvent):
        raise TypeError("the body breaks the contract")
    return event


def _check(raw: pl.DataFrame, masked: pl.DataFrame, maskers: Sequence[FieldMasker]) -> None:
    originals = [json.loads(body) for body in raw["body"]]
    texts = [masked[name].to_list() for name in (*_CLEAR, *(each.field.column for each in maskers))]
    for masker in maskers:
        values = [event[masker.field.name] for event in originals]
        pairs = dict.fromkeys(zip(values, masked[masker.field.column], strict=True))
        _check_pairs(masker, list(pairs))
        for column in texts:
            if any(text and value in text for value, text in zip(values, column, strict=True)):
                raise RuntimeError("a column holds an original")


def _check_pairs(masker: FieldMasker, pairs: Sequence[tuple[str, str]]) -> None:
    if not len(pairs) == len({value for value, _ in pairs}) == len({token for _, token in pairs}):
        raise RuntimeError("equal values do not have equal tokens, or different ones do")
    for value, token in pairs:
        is_primary = parse_token(masker.field, token).key_id == masker.primary_key_id
        if not is_primary or masker.decrypt(token) != masker.field.form.to_bytes(value):
            raise RuntimeError("a token is not of the primary key, or does not open to its value")
    for value, token in pairs[:GENUINE_DIGEST_SAMPLE]:
        _check_digests(masker, value, token)


def _check_digests(masker: FieldMasker, value: str, token: str) -> None:
    haystacks = (
        token.encode(),
        token.lower().encode(),
        parse_token(masker.field, token).ciphertext,
    )
    for original in (value.encode(), masker.field.form.to_bytes(value)):
        digests = [hashlib.new(name, original).digest() for name in _DIGESTS]
        forms = [form for each in (original, *digests) for form in _encodings(each)]
        if any(form in haystack for form in forms for haystack in haystacks):
            raise RuntimeError("a token holds a digest of its value")


def _encodings(value: bytes) -> tuple[bytes, ...]:
    encoders = (b64encode, urlsafe_b64encode, b32encode)
    return (value, value.hex().encode(), *(encode(value).rstrip(b"=") for encode in encoders))
