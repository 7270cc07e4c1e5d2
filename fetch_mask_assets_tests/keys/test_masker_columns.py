"""A column is masked and opened as each of its values is, and Tink is the judge of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tink import daead

from fetch_mask_assets.errors import KeysetError, TokenError
from fetch_mask_assets.keys import masker as masker_module
from fetch_mask_assets.keys import siv_columns
from fetch_mask_assets.keys.keyset import open_keyring
from fetch_mask_assets.keys.masker import SAMPLE_SIZE, FieldMasker
from fetch_mask_assets.masking.canonical_columns import pad_texts
from fetch_mask_assets.masking.fields import MASKED_FIELDS, MaskedField
from fetch_mask_assets.masking.token import parse_token
from fetch_mask_assets.masking.token_columns import format_tokens
from fetch_mask_assets_tests.support.factories import (
    keyring,
    new_keysets,
    rotated,
    shown,
    siv_keyset,
    strangers_keyring,
)

KEY = bytes(range(64))
KEY_ID = 0x01020304
NAMES = [field.name for field in MASKED_FIELDS]

_values = {
    "ip": st.ip_addresses().map(str),
    "device_id": st.text(max_size=64),
}


def _texts(*values: str | None) -> pl.Series:
    return pl.Series("texts", values, pl.String)


def _opened(masker: FieldMasker, token: str | None) -> bytes | None:
    try:
        return None if token is None else masker.decrypt(token)
    except TokenError:
        return None


def _key_id(masker: FieldMasker, token: str | None) -> int | None:
    try:
        return None if token is None else parse_token(masker.field, token).key_id
    except TokenError:
        return None


def _read(masker: FieldMasker, *tokens: str | None) -> list[bytes | None]:
    """The canonical value behind each token, None for one that is not genuine."""
    return masker.open_column(_texts(*tokens))["canonical"].to_list()


def _known(name: str) -> FieldMasker:
    known = siv_keyset(KEY, KEY_ID)
    return open_keyring(new_keysets() | {"ip": known, "device_id": known}).masker(name)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_column_is_masked_as_each_of_its_values(name: str, data: st.DataObject) -> None:
    masker = keyring().masker(name)
    values = data.draw(st.lists(st.none() | _values[name]))
    values += values[::2]

    actual = masker.mask_column(_texts(*values))

    assert actual.to_list() == [value if value is None else masker.mask(value) for value in values]
    assert (actual.name, actual.dtype) == ("texts", pl.String())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_column_is_opened_as_each_of_its_tokens(name: str, data: st.DataObject) -> None:
    masker, other = keyring().masker(name), strangers_keyring().masker(name)
    values = data.draw(st.lists(_values[name]))
    junk = data.draw(st.lists(st.none() | st.text()))
    genuine = [masker.mask(value) for value in values]
    altered = [token[:-3] + "AAA" for token in genuine]
    tokens = [*genuine, *altered, *(other.mask(value) for value in values), *junk, *genuine]

    actual = masker.open_column(_texts(*tokens))

    assert actual.schema == {"key_id": pl.UInt32(), "canonical": pl.Binary()}
    assert actual["canonical"].to_list() == [_opened(masker, token) for token in tokens]
    assert actual["key_id"].to_list() == [_key_id(masker, token) for token in tokens]
    assert _read(masker, *genuine) == [masker.field.form.to_bytes(value) for value in values]


def test_a_column_under_a_known_key_has_these_tokens_for_ever() -> None:
    """Computed with another implementation of RFC 5297: a change breaks every stored token."""
    ips = _known("ip").mask_column(_texts("192.0.2.1", "2001:db8::7"))
    devices = _known("device_id").mask_column(_texts("593-47-5928", "0123456789abcdef"))

    assert ips.to_list() == [
        "ip:AQECAwSIT3CH7KX5ktLjbIyt0PKtZGFxrmMc1gbQO6r7W1lZVQ",
        "ip:AQECAwTVhlAhrb480ZMbdrrRJWXKNW2Z5awAhXgJeyNo8F2gMw",
    ]
    assert devices.to_list() == [
        "device_id:AQECAwQO324Ipmz8NlvegJyJxfW6pCVyuP8ukVGvo6cnLPIUzw",
        "device_id:AQECAwR7h8sOVTAI1bJLSBBYXpZSDsx-IRYT6c09nL7HSzpm4wycRrLcWkJ7bZXWCe7okPc",
    ]


def test_a_column_of_a_rotated_keyset_is_masked_under_the_new_key_and_opens_both() -> None:
    keysets = new_keysets()
    old = open_keyring(keysets).masker("ip")
    new = open_keyring(keysets | {"ip": rotated(keysets["ip"], "ip")}).masker("ip")
    before, after = old.mask("192.0.2.1"), new.mask("192.0.2.1")
    canonical = new.decrypt(after)

    assert new.mask_column(_texts("192.0.2.1")).to_list() == [after]
    assert _read(new, before, after) == [canonical, canonical]
    assert _read(old, before, after) == [canonical, None]


def test_a_disabled_key_opens_no_column() -> None:
    keysets = new_keysets()
    before = open_keyring(keysets).masker("ip").mask("192.0.2.1")
    keyset = json.loads(rotated(keysets["ip"], "ip"))
    keyset["key"][0]["status"] = "DISABLED"
    without = open_keyring(keysets | {"ip": json.dumps(keyset)}).masker("ip")

    assert _read(without, before) == [None]


@pytest.mark.parametrize(
    ("name", "value"), [("ip", "canary-77"), ("ip", "192.0.2.999"), ("ip", "192.0.2.17 ")]
)
def test_a_column_with_a_value_that_cannot_be_masked_is_refused_without_it(
    name: str, value: str
) -> None:
    values = _texts("192.0.2.1", None, value)

    with pytest.raises(ValueError, match=f"^a value of {name} is not ") as caught:
        keyring().masker(name).mask_column(values)

    assert "canary" not in shown(caught.value)
    assert "192.0.2" not in shown(caught.value)


class _CountingCipher(daead.DeterministicAead):
    """Tink's cipher, and the number of its calls."""

    def __init__(self, cipher: daead.DeterministicAead) -> None:
        self._cipher = cipher
        self.calls = 0

    def encrypt_deterministically(self, plaintext: bytes, associated_data: bytes) -> bytes:
        self.calls += 1
        return self._cipher.encrypt_deterministically(plaintext, associated_data)

    def decrypt_deterministically(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        self.calls += 1
        return self._cipher.decrypt_deterministically(ciphertext, associated_data)


def test_a_sample_of_every_column_is_compared_with_tink_both_ways() -> None:
    masker = keyring().masker("device_id")
    cipher = _CountingCipher(masker._primitive)  # noqa: SLF001 (a double in its place)
    counted = dataclasses.replace(masker, _primitive=cipher, _under={masker.primary_key_id: cipher})
    values = _texts(*(f"device-{n:05}" for n in range(10 * SAMPLE_SIZE)), "x" * 20, "x" * 120)

    tokens = counted.mask_column(values)
    encrypted = cipher.calls
    counted.open_column(tokens)

    assert SAMPLE_SIZE <= encrypted <= 2 * SAMPLE_SIZE
    assert SAMPLE_SIZE <= cipher.calls - encrypted <= 2 * SAMPLE_SIZE


_Mutation = Callable[[pytest.MonkeyPatch], None]
_Cipher = siv_columns.SivColumns
_MASK = (1 << 128) - 1


def _iv_bits_are_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(siv_columns, "_COUNTER_MASK", b"\xff" * 16)


def _one_iv_bit_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(siv_columns, "_COUNTER_MASK", b"\xff" * 8 + b"\x7f" + b"\xff" * 7)


def _doubling_without_its_constant(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(siv_columns, "_double", lambda block: int.from_bytes(block, "big") << 1 & _MASK)


def _subkey_of_part_blocks(patch: pytest.MonkeyPatch) -> None:
    double = siv_columns._double  # noqa: SLF001 (what is mutated)
    twice = lambda block: double(double(block).to_bytes(16, "big"))  # noqa: E731
    patch.setattr(siv_columns, "_double", twice)


def _first_block_is_masked(patch: pytest.MonkeyPatch) -> None:
    original = _Cipher._synthetic_iv  # noqa: SLF001 (what is mutated)

    def synthetic_iv(cipher: _Cipher, blocks: Sequence[bytes]) -> bytes:
        first, *others = blocks
        mask = cipher._last_block * (len(first) // 16)  # noqa: SLF001 (what is mutated)
        plain = dataclasses.replace(cipher, _last_block=bytes(16))
        return original(plain, [siv_columns._xor(first, mask), *others])  # noqa: SLF001 (as above)

    patch.setattr(_Cipher, "_synthetic_iv", synthetic_iv)


def _counter_stands_still(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(siv_columns, "_ONE", bytes(16))


def _counter_counts_little_endian(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(siv_columns, "_ONE", bytes(12) + b"\1" + bytes(3))


def _encrypted_values_are_shifted(patch: pytest.MonkeyPatch) -> None:
    original = _Cipher._xor_key_stream  # noqa: SLF001 (what is mutated)

    def xor_key_stream(cipher: _Cipher, iv: bytes, blocks: Sequence[bytes]) -> list[bytes]:
        return [each[16:] + each[:16] for each in original(cipher, iv, blocks)]

    patch.setattr(_Cipher, "_xor_key_stream", xor_key_stream)


def _results_are_shifted(patch: pytest.MonkeyPatch) -> None:
    original = siv_columns._by_length  # noqa: SLF001 (what is mutated)

    def by_length(values: Sequence[bytes], work: Callable[..., list[bytes]]) -> list[bytes]:
        first, *others = original(values, work)
        return [*others, first]

    patch.setattr(siv_columns, "_by_length", by_length)


def _tokens_are_shifted(patch: pytest.MonkeyPatch) -> None:
    def shifted(*inputs: Any) -> pl.Series:  # noqa: ANN401 (passed on)
        return format_tokens(*inputs).gather([*range(1, len(inputs[2])), 0])

    patch.setattr(masker_module, "format_tokens", shifted)


def _tokens_under_another_key_id(patch: pytest.MonkeyPatch) -> None:
    def formatted(field: MaskedField, key_id: int, sealed: pl.Series) -> pl.Series:
        return format_tokens(field, key_id ^ 1, sealed)

    patch.setattr(masker_module, "format_tokens", formatted)


def _plain_base64(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        masker_module,
        "format_tokens",
        lambda *inputs: format_tokens(*inputs).str.replace_all("-", "+"),
    )


def _no_synthetic_iv(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Cipher, "_synthetic_iv", lambda _cipher, blocks: bytes(len(blocks[0])))


_MUTATIONS: list[_Mutation] = [
    _iv_bits_are_kept,
    _one_iv_bit_is_kept,
    _doubling_without_its_constant,
    _subkey_of_part_blocks,
    _first_block_is_masked,
    _counter_stands_still,
    _counter_counts_little_endian,
    _encrypted_values_are_shifted,
    _results_are_shifted,
    _tokens_are_shifted,
    _tokens_under_another_key_id,
    _plain_base64,
    _no_synthetic_iv,
]


@pytest.mark.parametrize("mutate", _MUTATIONS, ids=lambda each: each.__name__)
def test_a_mistake_in_the_cipher_over_columns_is_found_by_the_sample(
    mutate: _Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    masker = _known("device_id")
    values = _texts(*(f"{n:04}-" + "x" * (n % 40) for n in range(500)))

    with pytest.raises(KeysetError, match=r"^a column of device_id was not masked ") as caught:
        masker.mask_column(values)

    assert "0007-" not in shown(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        KEY[::-1],
        KEY[32:] + KEY[:32],
        KEY[:32] + bytes(32),
    ],
    ids=["another key", "halves swapped", "another key of the counter"],
)
def test_columns_under_another_key_than_tinks_are_refused(key: bytes) -> None:
    masker = _known("ip")
    other = siv_columns.siv_columns(key, masker.field.associated_data)
    mixed = dataclasses.replace(masker, _columns={KEY_ID: other})

    with pytest.raises(KeysetError, match=r"^a column of ip was not masked "):
        mixed.mask_column(_texts("192.0.2.1"))
    with pytest.raises(KeysetError, match=r"^a column of ip was not masked "):
        mixed.open_column(_texts(masker.mask("192.0.2.1")))


def test_columns_with_the_data_of_another_field_are_refused() -> None:
    masker = _known("ip")
    other = siv_columns.siv_columns(KEY, b"user_logins/device_id")
    mixed = dataclasses.replace(masker, _columns={KEY_ID: other})

    with pytest.raises(KeysetError):
        mixed.mask_column(_texts("192.0.2.1"))


def test_a_mistake_in_the_longest_value_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = _Cipher._encrypt  # noqa: SLF001 (what is mutated)

    def encrypt(cipher: _Cipher, values: Sequence[bytes]) -> list[bytes]:
        sealed = original(cipher, values)
        return sealed if len(values[0]) < 9 * 16 else [bytes(len(each)) for each in sealed]

    monkeypatch.setattr(_Cipher, "_encrypt", encrypt)
    values = _texts(*(f"device-{n:05}" for n in range(5000)), "x" * 128)

    with pytest.raises(KeysetError):
        keyring().masker("device_id").mask_column(values)


def test_a_forged_token_that_the_columns_open_is_refused_by_tink(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masker = keyring().masker("ip")
    token = masker.mask("192.0.2.1")
    monkeypatch.setattr(_Cipher, "_decrypt", lambda _cipher, sealed: [each[16:] for each in sealed])

    with pytest.raises(KeysetError):
        masker.open_column(_texts(token[:-3] + "AAA"))


def test_a_mistake_in_a_canonical_form_over_columns_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = lambda _form, texts: pad_texts(texts.str.to_uppercase())  # noqa: E731
    monkeypatch.setattr(masker_module, "canonical_column", changed)

    with pytest.raises(KeysetError):
        keyring().masker("device_id").mask_column(_texts("device-1"))
