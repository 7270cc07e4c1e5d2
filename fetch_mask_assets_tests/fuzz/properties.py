"""What must hold for any input at all, as functions that both fuzzers call.

Each takes an input and fails with an `AssertionError` if something does not hold; what the product
raises on purpose is looked at for parts of the input.
"""

from __future__ import annotations

import inspect
import json
import re
import traceback
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from functools import cache

import polars as pl

from fetch_mask_assets import errors
from fetch_mask_assets.cli.wording import printable
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys import keyset
from fetch_mask_assets.keys.keyset import (
    KEYSET_NAMES,
    QUARANTINE,
    Keyring,
    new_keyset,
    open_keyring,
    parse_keyset,
)
from fetch_mask_assets.masking import addresses, canonical, fields, token
from fetch_mask_assets.masking.addresses import addresses_in, pack_ip, unpack_ip
from fetch_mask_assets.masking.canonical import MAX_TEXT_BYTES, pad_text, unpad_text
from fetch_mask_assets.masking.fields import (
    DEVICE_ID,
    FIELD_NAMES,
    FIELDS,
    IP,
    MAX_TOKEN_LENGTH,
)
from fetch_mask_assets.masking.token import parse_token
from fetch_mask_assets.masking.version_number import INT4_MAX, version_number
from fetch_mask_assets.pipeline.contract.body_profile import (
    NOT_AN_OBJECT,
    NOT_JSON,
    body_profile,
)
from fetch_mask_assets.pipeline.contract.decoding import decode_bodies
from fetch_mask_assets.pipeline.contract.login_event import LoginEvent, decode_login_event
from fetch_mask_assets.pipeline.contract.message_body import parse_object, storable_text
from fetch_mask_assets.pipeline.contract.ordinary_bodies import ROW
from fetch_mask_assets.pipeline.contract.rejection import Reason, RejectedError, Rejection
from fetch_mask_assets_tests.support.versions import version_text

# Shorter parts of an input occur in any sentence.
_WORDS = re.compile(r"[^\s\"'{}\[\]:,;()]{8,}")
_NOTHING = re.compile(r"(?!)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_KEY_ID = re.compile(r"\d+")
_NAMES = "|".join(FIELD_NAMES)
_SHAPE = re.compile(
    rf"{NOT_JSON}|{NOT_AN_OBJECT}|(no known field|({_NAMES})(,({_NAMES}))*)"
    r"( \+\d+( or more)? unknown)?( \+\d+( or more)? repeated)?"
)


@cache
def keyring() -> Keyring:
    """Keys of the fuzzers' own."""
    return open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})


def body_is_loaded_or_sealed(body: str) -> None:
    """A body is a login that reads back, or a reason that tells nothing and a body that opens."""
    decoded = decode_login_event(body)
    if isinstance(decoded, LoginEvent):
        _assert_reads_back(body, decoded)
        return
    assert isinstance(decoded, Rejection)
    assert isinstance(decoded.reason, Reason)
    assert decoded.field is None or decoded.field in FIELD_NAMES
    sealer = keyring().sealer
    assert sealer.open(sealer.seal(body, "m"), "m") == body


def bodies_are_decoded_as_each_alone(bodies: Sequence[str]) -> None:
    """A batch has for each body the event or the rejection that it has alone."""
    stored = [storable_text(body) for body in bodies]
    decoded = decode_bodies(pl.Series(stored, dtype=pl.String))
    for actual, body in zip(decoded.drop(ROW).iter_rows(), stored, strict=True):
        assert actual == _decoded_alone(body), f"a body of {len(body)} characters"


def _decoded_alone(body: str) -> tuple[str | int | None, ...]:
    decoded = decode_login_event(body)
    if isinstance(decoded, Rejection):
        return (*[None] * len(FIELD_NAMES), None, decoded.reason, decoded.field)
    return (*(decoded.values[name] for name in FIELD_NAMES), decoded.extra_fields, None, None)


def stored_body_means_the_same_or_nothing(body: str) -> None:
    """What a frame can hold of a body reads as the body does, or is no JSON."""
    stored = storable_text(body)
    assert stored.encode().decode() == stored == storable_text(stored)
    assert (stored == body) is (_SURROGATE.search(body) is None)
    assert _meaning(stored) in (_meaning(body), Reason.NOT_JSON)


def body_has_a_shape_that_tells_nothing(body: str) -> None:
    """The shape of a body is made of our words and of numbers, and what is printed obeys."""
    shape = body_profile(body)
    assert _SHAPE.fullmatch(shape), f"a shape of {len(shape)} characters is not ours"
    assert printable(body).isprintable() or not body


def text_is_an_address_or_refused(text: str) -> None:
    """An address has one form that reads back; what is none is refused without its text."""
    try:
        packed = pack_ip(text)
    except ValueError as error:
        _assert_tells_nothing(error, text)
        return
    original = unpack_ip(packed)
    assert pack_ip(original) == packed
    assert packed in addresses_in(f"<{original}>")
    assert keyring().masker("ip").unmask(keyring().masker("ip").mask(text)) == original


def text_is_a_device_id_or_refused(text: str) -> None:
    """A device id reads back as it came; what UTF-8 cannot hold is refused without its text."""
    try:
        padded = pad_text(text)
    except ValueError as error:
        _assert_tells_nothing(error, text)
        return
    assert unpad_text(padded) == text
    if len(text.encode()) <= MAX_TEXT_BYTES:
        masked = keyring().masker("device_id").mask(text)
        assert len(masked) <= MAX_TOKEN_LENGTH
        assert keyring().masker("device_id").unmask(masked) == text


def bytes_are_a_padding_or_refused(padded: bytes) -> None:
    """A padding is the one of its text, or refused without it."""
    try:
        text = unpad_text(padded)
    except ValueError as error:
        _assert_tells_nothing(error, padded.decode("latin-1"))
        return
    assert padded.startswith(pad_text(text)[:-1].rstrip(b"\0"))


def text_is_a_version_or_none(text: str) -> None:
    """A version has a number that reads back, or none."""
    number = version_number(text)
    assert number is None or (
        0 <= number <= INT4_MAX and version_number(version_text(number)) == number
    )


def text_is_a_token_or_refused(text: str) -> None:
    """No text but a genuine token opens; what is refused is refused by our own error."""
    for masker in keyring().maskers:
        try:
            parsed = parse_token(masker.field, text)
        except FetchMaskError as error:
            _assert_tells_nothing(error, text)
            continue
        encoded = urlsafe_b64encode(parsed.ciphertext).rstrip(b"=").decode()
        assert masker.field.token_prefix + encoded == text
        try:
            original = masker.unmask(text)
        except FetchMaskError as error:
            _assert_tells_nothing(error, text)
            continue
        assert masker.mask(original) == text


def token_is_refused_once_altered(value: str, place: int, by: int) -> None:
    """A genuine token with one changed bit does not open."""
    masker = keyring().masker("device_id")
    genuine = masker.mask(value)
    parsed = bytearray(parse_token(DEVICE_ID, genuine).ciphertext)
    parsed[place % len(parsed)] ^= 1 << (by % 8)
    altered = DEVICE_ID.token_prefix + urlsafe_b64encode(parsed).rstrip(b"=").decode()
    try:
        masker.unmask(altered)
    except FetchMaskError as error:
        _assert_tells_nothing(error, value)
        return
    raise AssertionError("an altered token opened")


def text_is_a_keyset_or_refused(text: str) -> None:
    """A keyset opens, or is refused by our own error without anything of it."""
    for name in (IP.name, QUARANTINE):
        try:
            members = parse_keyset(name, text)
        except FetchMaskError as error:
            _assert_tells_nothing(error, text, public=_KEY_ID)
            continue
        assert members["key"]


def _meaning(body: str) -> object:
    """What a body holds, or why it is refused."""
    try:
        return parse_object(body)
    except RejectedError as refused:
        return refused.rejection.reason


def _assert_reads_back(body: str, event: LoginEvent) -> None:
    sent = json.loads(body)
    assert {name: sent.get(name) for name in FIELD_NAMES} == event.values
    assert event.extra_fields == len(sent) - sum(name in sent for name in FIELD_NAMES)
    assert all(len(sent.get(field.name) or "") <= field.max_length for field in FIELDS)
    for masker in keyring().maskers:
        value, to_bytes = sent[masker.field.name], masker.field.form.to_bytes
        assert to_bytes(masker.unmask(masker.mask(value))) == to_bytes(value)


def _assert_tells_nothing(error: Exception, text: str, public: re.Pattern[str] = _NOTHING) -> None:
    """No word of the input that is not one of our own sentences' is in what an error shows."""
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    told = "".join(traceback.format_exception_only(error)) + repr(error.args)
    foreign = _WORDS.sub(lambda found: "" if found[0] in _our_words() else found[0], told)
    for word in _WORDS.findall(text[:10_000]):
        assert public.fullmatch(word) or word not in foreign, (
            f"a part of {len(word)} characters is in {type(error).__name__}"
        )


@cache
def _our_words() -> frozenset[str]:
    """The words of the modules that raise: what an error may say."""
    modules = (addresses, canonical, errors, fields, keyset, token)
    sources = "\n".join(map(inspect.getsource, modules))
    words = _WORDS.findall(sources)
    return frozenset(form for word in words for form in (word, word.rstrip("."), f"{word}."))
