"""AES-SIV over columns is byte for byte that of Tink.

The examples of RFC 5297 itself are not of whole blocks; the published answers here are those of
Wycheproof.
"""

from __future__ import annotations

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tink
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tink import daead, secret_key_access
from tink import json_proto_keyset_format as json_format

from fetch_mask_assets.keys import siv_columns as columns_module
from fetch_mask_assets.keys.siv_columns import SivColumns, siv_columns
from fetch_mask_assets_tests.support.factories import keyring, shown, siv_keyset

KEY = bytes(range(64))
KEY_ID = 0x01020304
DATA = b"user_logins/ip"

_VECTORS = json.loads((Path(__file__).parent / "data" / "aes_siv_vectors.json").read_text())[
    "vectors"
]
_WHOLE_BLOCKS = [each for each in _VECTORS if each["msg"] and len(each["msg"]) % 32 == 0]
_blocks = st.integers(1, 12).flatmap(
    lambda count: st.binary(min_size=16 * count, max_size=16 * count)
)


def _tink(key: bytes) -> daead.DeterministicAead:
    """Tink's cipher without a prefix."""
    keyring()  # registers the cipher
    handle = json_format.parse(siv_keyset(key, KEY_ID, "RAW"), secret_key_access.TOKEN)
    return handle.primitive(daead.DeterministicAead)  # type: ignore[type-abstract]  # Tink's own idiom


def test_a_column_in_parts_is_byte_for_byte_that_of_tink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "VALUES_IN_PART", 3)
    cipher, tinks = siv_columns(KEY, DATA), _tink(KEY)
    for lengths in ([16], [16, 32, 48]):
        values = [bytes([number] * lengths[number % len(lengths)]) for number in range(31)]

        sealed = cipher.encrypt(values)

        assert sealed == [tinks.encrypt_deterministically(each, DATA) for each in values]
        assert cipher.decrypt(sealed) == values


def test_there_are_published_answers_of_whole_blocks() -> None:
    assert [len(each["msg"]) // 2 for each in _WHOLE_BLOCKS].count(16) == 6
    assert {len(each["msg"]) // 2 for each in _WHOLE_BLOCKS} == {16, 48, 80}


@pytest.mark.parametrize("vector", _WHOLE_BLOCKS, ids=lambda vector: str(vector["tcId"]))
def test_a_column_has_the_published_answers(vector: dict[str, str]) -> None:
    message, published = bytes.fromhex(vector["msg"]), bytes.fromhex(vector["ct"])
    cipher = siv_columns(bytes.fromhex(vector["key"]), bytes.fromhex(vector["aad"]))

    assert cipher.encrypt([message]) == [published]
    assert cipher.decrypt([published]) == [message]


@settings(max_examples=200, deadline=None)
@given(
    key=st.binary(min_size=64, max_size=64),
    data=st.binary(max_size=80),
    values=st.lists(_blocks, max_size=12),
)
@example(key=KEY, data=b"", values=[bytes(16), bytes(32), b"\xff" * 144, bytes(16)])
def test_a_column_is_byte_for_byte_that_of_tink(
    key: bytes, data: bytes, values: list[bytes]
) -> None:
    cipher, tinks = siv_columns(key, data), _tink(key)

    sealed = cipher.encrypt(values)

    assert sealed == [tinks.encrypt_deterministically(each, data) for each in values]
    assert cipher.decrypt(sealed) == values


@settings(max_examples=100, deadline=None)
@given(values=st.lists(_blocks, max_size=12), place=st.integers(0), bit=st.integers(0, 7))
def test_an_altered_result_is_none_and_the_others_are_not(
    values: list[bytes], place: int, bit: int
) -> None:
    cipher, tinks = siv_columns(KEY, DATA), _tink(KEY)
    sealed = cipher.encrypt(values)
    altered = [_flipped(each, place, bit) for each in sealed]
    both = [each for pair in zip(sealed, altered, strict=True) for each in pair]

    actual = cipher.decrypt(both)

    assert actual[0::2] == values
    assert actual[1::2] == [None] * len(values)
    assert not any(_opens(tinks, each) for each in altered)


def _flipped(sealed: bytes, place: int, bit: int) -> bytes:
    flipped = bytearray(sealed)
    flipped[place % len(flipped)] ^= 1 << bit
    return bytes(flipped)


def _opens(tinks: daead.DeterministicAead, sealed: bytes) -> bool:
    try:
        return bool(tinks.decrypt_deterministically(sealed, DATA))
    except tink.TinkError:
        return False


@pytest.mark.parametrize(
    "other",
    [
        siv_columns(KEY[::-1], DATA),
        siv_columns(KEY[32:] + KEY[:32], DATA),
        siv_columns(KEY, b"user_logins/device_id"),
    ],
    ids=["another key", "halves swapped", "other data"],
)
def test_a_result_of_another_cipher_is_none(other: SivColumns) -> None:
    cipher = siv_columns(KEY, DATA)

    actual = cipher.decrypt([*other.encrypt([bytes(16)]), *cipher.encrypt([bytes(16)])])

    assert actual == [None, bytes(16)]


@pytest.mark.parametrize("length", [0, 1, 15, 17, 31, 33])
def test_a_value_that_is_not_of_whole_blocks_is_refused_without_it(length: int) -> None:
    cipher, value = siv_columns(KEY, DATA), (b"canary" * 6)[:length]

    for values in ([value], [bytes(16), value]):
        with pytest.raises(ValueError, match=r"^a value is not of whole blocks$") as caught:
            cipher.encrypt(values)

        assert "canary" not in shown(caught.value)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 31, 33])
def test_bytes_of_a_length_that_no_result_has_are_refused(length: int) -> None:
    cipher = siv_columns(KEY, DATA)

    for sealed in ([bytes(length)], [bytes(32), bytes(length)]):
        with pytest.raises(ValueError, match=r"^a value is not of whole blocks$"):
            cipher.decrypt(sealed)


def test_an_empty_column_stays_so() -> None:
    cipher = siv_columns(KEY, DATA)

    assert cipher.encrypt([]) == []
    assert cipher.decrypt([]) == []


def test_one_cipher_serves_several_threads() -> None:
    cipher = siv_columns(KEY, DATA)
    values = [os.urandom(16) for _ in range(20_000)]
    expected = cipher.encrypt(values)

    with ThreadPoolExecutor(4) as threads:
        actual = list(threads.map(lambda _: cipher.encrypt(values), range(10)))

    assert all(each == expected for each in actual)


def test_a_cipher_does_not_show_its_key() -> None:
    assert repr(siv_columns(KEY, DATA)) == "SivColumns()"


@pytest.mark.long
@pytest.mark.servers
def test_a_million_values_are_those_of_tink() -> None:
    chance = random.Random(5297)  # noqa: S311 (values to compare)
    cipher, tinks = siv_columns(KEY, DATA), _tink(KEY)
    values = [chance.randbytes(16 * chance.randint(1, 9)) for _ in range(1_000_000)]

    sealed = cipher.encrypt(values)

    assert sealed == [tinks.encrypt_deterministically(each, DATA) for each in values]
    assert cipher.decrypt(sealed) == values
