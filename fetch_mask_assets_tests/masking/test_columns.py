"""A column function gives for each value the result of the function of that value."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import TypeVar

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.masking.addresses import pack_ip
from fetch_mask_assets.masking.canonical import CanonicalForm, pad_text
from fetch_mask_assets.masking.canonical_columns import (
    canonical_column,
    column_check,
    pack_ips,
    pad_texts,
)
from fetch_mask_assets.masking.fields import DEVICE_ID, IP, MASKED_FIELDS, MaskedField
from fetch_mask_assets.masking.token import PREFIX_BYTES, format_token, key_prefix, parse_token
from fetch_mask_assets.masking.token_columns import format_tokens, parse_tokens
from fetch_mask_assets_tests.masking.test_canonical import NOT_IPS

_V = TypeVar("_V")
_R = TypeVar("_R")

TEXT = "ip:AQECAwQAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw"

_addresses = st.ip_addresses().map(str)
_quads = st.lists(
    st.integers(0, 300).map(str) | st.sampled_from(["", "00", "01", "007", "1 ", "+1", "1_0", "¹"]),
    min_size=3,
    max_size=5,
).map(".".join)
_marks = st.sampled_from(["", " ", "\n", "\0", ".", ":", "%1", "/8", "\u0661", "::", "0", "\u2028"])
_like_addresses = st.tuples(_marks, _addresses | _quads, _marks).map("".join)
_hexadecimal = st.text("0123456789abcdefABCDEF:.", max_size=45)
_groups = st.lists(
    st.sampled_from(["", "", "0", "1", "db8", "FFFF", "00ff", "00001", "g", "192.0.2.1"]),
    max_size=10,
).map(":".join)


def _or_none(work: Callable[[_V], _R], value: _V | None) -> _R | None:
    try:
        return None if value is None else work(value)
    except (ValueError, TokenError):
        return None


def _texts(values: list[str | None]) -> pl.Series:
    return pl.Series("texts", values, pl.String)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(
        st.none() | _addresses | _quads | _like_addresses | _hexadecimal | _groups | st.text()
    )
)
@example(texts=[*NOT_IPS, "192.0.2.1", "::ffff:192.0.2.1", "2001:db8::7", "0.0.0.0"])  # noqa: S104 (an address like any other)
def test_a_column_of_addresses_is_packed_as_each_of_them(texts: list[str | None]) -> None:
    actual = pack_ips(_texts(texts))

    assert actual.to_list() == [_or_none(pack_ip, text) for text in texts]
    assert actual.dtype == pl.Binary


def test_every_octet_is_packed_at_every_place() -> None:
    octets = [
        *map(str, range(1000)),
        *(f"{n:02}" for n in range(10)),
        *(f"{n:03}" for n in range(100)),
    ]
    texts = [
        ".".join(["1"] * place + [octet] + ["2"] * (3 - place))
        for place in range(4)
        for octet in octets
    ]

    actual = pack_ips(_texts([*texts]))

    assert actual.to_list() == [_or_none(pack_ip, text) for text in texts]
    assert actual.count() == 4 * 256


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.none() | st.text(max_size=150)))
@example(texts=["x" * length for length in range(130)])
@example(texts=["", "\0", "x\0", "é" * 64, "😀" * 32, None])
def test_a_column_of_texts_is_padded_as_each_of_them(texts: list[str | None]) -> None:
    actual = pad_texts(_texts(texts))

    assert actual.to_list() == [_or_none(pad_text, text) for text in texts]
    assert actual.dtype == pl.Binary


@settings(max_examples=100, deadline=None)
@given(
    field=st.sampled_from(MASKED_FIELDS),
    key_id=st.integers(0, 2**32 - 1),
    sealed=st.lists(st.binary()),
)
def test_a_column_of_tokens_is_formatted_as_each_of_them(
    field: MaskedField, key_id: int, sealed: list[bytes]
) -> None:
    actual = format_tokens(field, key_id, pl.Series(sealed, dtype=pl.Binary))

    assert actual.to_list() == [format_token(field, key_prefix(key_id) + each) for each in sealed]


def _parsed(field: MaskedField, text: str | None) -> tuple[int | None, bytes | None]:
    token = _or_none(lambda each: parse_token(field, each), text)
    return (token.key_id, token.ciphertext[PREFIX_BYTES:]) if token else (None, None)


def _assert_parsed_alike(field: MaskedField, texts: list[str | None]) -> None:
    actual = parse_tokens(field, _texts(texts))

    assert actual.rows() == [_parsed(field, text) for text in texts]
    assert actual.schema == {"key_id": pl.UInt32(), "sealed": pl.Binary()}


_ciphertexts = st.builds(
    lambda version, rest, blocks, over: bytes([version]) + (rest * 16)[: 20 + 16 * blocks + over],
    st.sampled_from([1, 1, 1, 0, 2]),
    st.binary(min_size=20, max_size=20),
    st.integers(0, 12),
    st.sampled_from([0, 0, 0, -1, 1]),
)
_tokens = st.builds(format_token, st.sampled_from(MASKED_FIELDS), _ciphertexts)


@settings(max_examples=300, deadline=None)
@given(
    field=st.sampled_from(MASKED_FIELDS),
    texts=st.lists(st.none() | _tokens | _tokens.map(lambda text: text[:-1] + "B") | st.text()),
)
def test_a_column_of_texts_is_parsed_as_each_of_them(
    field: MaskedField, texts: list[str | None]
) -> None:
    _assert_parsed_alike(field, texts)


@settings(max_examples=200, deadline=None)
@given(
    token=_tokens, place=st.integers(0, 300), piece=st.text(max_size=3), length=st.integers(0, 3)
)
def test_a_changed_token_has_one_verdict(token: str, place: int, piece: str, length: int) -> None:
    place %= len(token) + 1
    changed = token[:place] + piece + token[place + length :]

    for field in MASKED_FIELDS:
        _assert_parsed_alike(field, [token, changed])


@pytest.mark.parametrize("field", [IP, DEVICE_ID], ids=["ip", "device_id"])
def test_every_change_of_one_character_has_one_verdict(field: MaskedField) -> None:
    changed: list[str | None] = [
        TEXT[:place] + other + TEXT[place + length :]
        for place in range(len(TEXT) + 1)
        for other in ["", *"Aa09-_+/=. \n\0:", "é", "==", "AAAA"]
        for length in (0, 1)
    ]

    _assert_parsed_alike(field, [TEXT, *changed])
    assert parse_tokens(IP, _texts([TEXT, *changed]))["sealed"].count() > 100


@pytest.mark.parametrize(("value_bytes", "valid"), [(16, 4), (32, 16), (48, 64)])
def test_every_last_character_has_one_verdict(value_bytes: int, valid: int) -> None:
    """Its lowest bits, which hold nothing, are zero in the one spelling of a token."""
    token = format_token(IP, b"\1" + bytes(range(20 + value_bytes)))
    texts = [token[:-1] + last for last in string.printable]

    _assert_parsed_alike(IP, [*texts])
    assert parse_tokens(IP, _texts([*texts]))["sealed"].count() == valid


@pytest.mark.parametrize("length", range(245, 265))
def test_the_longest_tokens_have_one_verdict(length: int) -> None:
    texts = [("device_id:AQECAwQ" + end).ljust(length, "A") for end in ("", "é", "A")]

    _assert_parsed_alike(DEVICE_ID, [*texts])


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.none() | _addresses | _like_addresses | st.text(max_size=150)))
@example(texts=[*NOT_IPS, None, "x" * 128, "x" * 129, "é" * 64, "é" * 65])
def test_a_column_is_checked_as_each_of_its_texts(texts: list[str | None]) -> None:
    for form in {field.form for field in MASKED_FIELDS}:
        assert column_check(form, _texts(texts)).to_list() == [
            text is None or _passes(form, text) for text in texts
        ]


def _passes(form: CanonicalForm, text: str) -> bool:
    try:
        form.check(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("field", MASKED_FIELDS, ids=lambda field: field.name)
def test_every_field_has_its_canonical_form_over_columns(field: MaskedField) -> None:
    example = field.form.example

    assert canonical_column(field.form, _texts([example])).to_list() == [
        field.form.to_bytes(example)
    ]


def test_an_empty_column_stays_empty() -> None:
    assert pack_ips(_texts([])).to_list() == []
    assert pad_texts(_texts([])).to_list() == []
    assert parse_tokens(IP, _texts([])).rows() == []
    assert format_tokens(IP, 1, pl.Series([], dtype=pl.Binary)).to_list() == []
