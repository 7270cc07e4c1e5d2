"""A token has one spelling, a field and a key id."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.masking.fields import DEVICE_ID, IP, MASKED_FIELDS, MaskedField
from fetch_mask_assets.masking.token import (
    Token,
    format_token,
    key_head_length,
    key_heads,
    parse_token,
    sealed_key_id,
    token_key_id,
)
from fetch_mask_assets_tests.support.declared_fields import max_token_length, min_token_length
from fetch_mask_assets_tests.support.factories import shown

CIPHERTEXT = bytes([1, 1, 2, 3, 4]) + bytes(range(32))
TEXT = "ip:AQECAwQAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw"


def test_a_token_is_its_field_and_base64url() -> None:
    actual = format_token(IP, CIPHERTEXT)

    assert actual == TEXT


def test_a_token_is_taken_apart() -> None:
    assert parse_token(IP, TEXT) == Token(key_id=0x01020304, ciphertext=CIPHERTEXT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ip:",
        "ip",
        TEXT.removeprefix("ip:"),
        TEXT.replace("ip:", "IP:"),
        TEXT.replace("ip:", "device_id:"),
        "ip:" + TEXT,
        " " + TEXT,
        TEXT + " ",
        TEXT + "\n",
        TEXT + "=",
        TEXT + "==",
        TEXT[:-1] + "x",
        TEXT[:-1],
        TEXT + "A",
        TEXT + "A" * 24,
        TEXT[:20],
        "ip:AQECAwQAAQIDBAUGBwgJCgsMDQ4P",
        TEXT.replace("ip:AQ", "ip:Ag"),
        TEXT.replace("AQIDBA", "AQ\nIDBA"),
        TEXT.replace("AQIDBA", "AQ.IDBA"),
        TEXT.replace("AQIDBA", "AQĀIDBA"),
        "ip:" + "A" * 300,
        "ip:" + "ff" * 16,
        "None",
        "ip:None",
        "192.0.2.17",
    ],
)
def test_what_format_token_does_not_make_is_no_token(text: str) -> None:
    with pytest.raises(TokenError) as caught:
        parse_token(IP, text)

    assert len(text) < 5 or text not in shown(caught.value)


def test_the_alphabet_of_plain_base64_is_another_spelling() -> None:
    token = format_token(IP, bytes([1]) + b"\xfb\xff" * 10 + bytes(16))
    plain = token.replace("-", "+").replace("_", "/")

    assert plain != token
    with pytest.raises(TokenError, match="not base64url"):
        parse_token(IP, plain)


@settings(max_examples=100, deadline=None)
@given(
    field=st.sampled_from(MASKED_FIELDS),
    key_id=st.integers(0, 2**32 - 1),
    sealed=st.integers(2, 10).flatmap(
        lambda blocks: st.binary(min_size=16 * blocks, max_size=16 * blocks)
    ),
)
def test_a_token_comes_back_as_it_was_made(field: MaskedField, key_id: int, sealed: bytes) -> None:
    ciphertext = b"\1" + key_id.to_bytes(4, "big") + sealed

    actual = parse_token(field, format_token(field, ciphertext))

    assert Token(key_id, ciphertext) == actual


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters()) | st.text().map(lambda rest: f"device_id:{rest}"))
def test_any_text_is_a_token_or_a_token_error(text: str) -> None:
    with pytest.raises(TokenError):
        parse_token(DEVICE_ID, text)


@pytest.mark.parametrize(
    ("field", "expected"), [(IP, (53, 53)), (DEVICE_ID, (60, 256))], ids=lambda each: str(each)[:20]
)
def test_the_lengths_of_tokens_follow_from_the_form(
    field: MaskedField, expected: tuple[int, int]
) -> None:
    assert (min_token_length(field), max_token_length(field)) == expected


@settings(max_examples=100, deadline=None)
@given(
    field=st.sampled_from(MASKED_FIELDS),
    key_id=st.integers(0, 2**32 - 1),
    sealed=st.binary(min_size=32, max_size=32),
)
def test_the_key_id_is_read_from_the_first_characters_of_a_token(
    field: MaskedField, key_id: int, sealed: bytes
) -> None:
    ciphertext = b"\1" + key_id.to_bytes(4, "big") + sealed
    head = format_token(field, ciphertext)[: key_head_length(field)]

    assert token_key_id(field, head) == sealed_key_id(ciphertext) == key_id
    assert head in key_heads(field, key_id)
    assert {token_key_id(field, each) for each in key_heads(field, key_id)} == {key_id}


@pytest.mark.parametrize(
    "text",
    ["", "ip:", TEXT[:9], TEXT[3:], TEXT.replace("ip:AQ", "ip:Ag"), TEXT[:9] + "=", "ip:192.0.2.1"],
)
def test_a_text_that_is_no_token_has_no_key_id(text: str) -> None:
    assert token_key_id(IP, text) is None


@pytest.mark.parametrize("body", [b"", b"\1\0\0\0\1", b"\0\0\0\0\1\0", b"{}"])
def test_bytes_that_are_no_sealed_body_have_no_key_id(body: bytes) -> None:
    assert sealed_key_id(body) is None
