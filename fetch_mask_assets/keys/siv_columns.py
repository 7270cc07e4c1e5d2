"""AES-SIV (RFC 5297) over many values: the output of Tink's cipher for each value, in fewer calls.

AES in ECB mode and CMAC are those of `cryptography`; this module is the mode of operation over a
column. It calls AES once for each block position, where Tink is called once for each value.
`FieldMasker` compares a sample of every column with Tink.
Source: https://www.rfc-editor.org/rfc/rfc5297 and https://www.rfc-editor.org/rfc/rfc4493
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from itertools import chain
from struct import Struct
from typing import TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from fetch_mask_assets.masking.canonical import BLOCK

VALUES_IN_PART = 10_000

_Aes = Cipher[modes.ECB]
_R = TypeVar("_R")

# RFC 5297, 2.5: bits 31 and 63 of the counter are cleared. So all counters of a column can be
# incremented as one number: no carry reaches the next counter.
_COUNTER_MASK = bytes.fromhex("ffffffffffffffff7fffffff7fffffff")
_ONE = bytes.fromhex("00000000000000000000000000000001")


@dataclass(frozen=True, slots=True, eq=False)
class SivColumns:
    """One key of AES-SIV with one associated data.

    The values are whole blocks of 16 bytes, at least one, as every canonical form is.
    """

    _mac: _Aes = dataclass_field(repr=False)
    _counter: _Aes = dataclass_field(repr=False)
    _last_block: bytes = dataclass_field(repr=False)

    def encrypt(self, values: Sequence[bytes]) -> list[bytes]:
        """The synthetic IV and the encrypted value, for each value.

        Raises:
            ValueError: a value is not of whole blocks, at least one; carries no value.
        """
        return _by_length(values, self._encrypt)

    def decrypt(self, sealed: Sequence[bytes]) -> list[bytes | None]:
        """The value of each result of `encrypt`; None for one that is not genuine.

        Raises:
            ValueError: one is not of whole blocks, at least two.
        """
        return _by_length(sealed, self._decrypt)

    def _encrypt(self, values: Sequence[bytes]) -> list[bytes]:
        blocks = _blocks(values)
        iv = self._synthetic_iv(blocks)
        return _values([iv, *self._xor_key_stream(iv, blocks)])

    def _decrypt(self, sealed: Sequence[bytes]) -> list[bytes | None]:
        iv, *encrypted = _blocks(sealed)
        blocks = self._xor_key_stream(iv, encrypted)
        expected = self._synthetic_iv(blocks)
        found = zip(_values(blocks), _split(iv), _split(expected), strict=True)
        return [value if one == other else None for value, one, other in found]

    def _synthetic_iv(self, blocks: Sequence[bytes]) -> bytes:
        """S2V of RFC 5297, 2.4: the CMAC of the value, whose last block is masked."""
        if not blocks:
            raise ValueError(_NOT_WHOLE)
        *others, last = blocks
        mac = bytes(len(last))
        for block in (*others, _xor(last, self._last_block * (len(last) // BLOCK))):
            mac = _encrypt_blocks(self._mac, _xor(mac, block))
        return mac

    def _xor_key_stream(self, iv: bytes, blocks: Sequence[bytes]) -> list[bytes]:
        """AES in counter mode, which begins at each value's IV (RFC 5297, 2.5)."""
        count = len(iv) // BLOCK
        first, one = _number(iv) & _number(_COUNTER_MASK * count), _number(_ONE * count)
        counters = ((first + place * one).to_bytes(len(iv), "big") for place in range(len(blocks)))
        key_stream = (_encrypt_blocks(self._counter, each) for each in counters)
        return [_xor(block, stream) for block, stream in zip(blocks, key_stream, strict=True)]


def siv_columns(key: bytes, associated_data: bytes) -> SivColumns:
    """The cipher of a key of 64 bytes, whose halves are the keys of MAC and encryption.

    Args:
        key: the key of an AES-256-SIV keyset. It is not shown by any repr of the result.
        associated_data: bound into each result of `encrypt`.
    """
    mac_key, counter_key = key[: len(key) // 2], key[len(key) // 2 :]
    data_mac = _double(_cmac(mac_key, bytes(BLOCK))) ^ _number(_cmac(mac_key, associated_data))
    mac = _aes(mac_key)
    subkey = _double(_encrypt_blocks(mac, bytes(BLOCK)))
    return SivColumns(mac, _aes(counter_key), (data_mac ^ subkey).to_bytes(BLOCK, "big"))


def _by_length(values: Sequence[bytes], work: Callable[[Sequence[bytes]], list[_R]]) -> list[_R]:
    """The results of `work` for the values of each length, in the order of the values."""
    lengths = set(map(len, values))
    if any(length == 0 or length % BLOCK for length in lengths):
        raise ValueError(_NOT_WHOLE)
    if len(lengths) == 1:
        return _by_parts(values, work)
    results: dict[int, _R] = {}
    for length in lengths:
        rows = [row for row, value in enumerate(values) if len(value) == length]
        results |= zip(rows, _by_parts([values[row] for row in rows], work), strict=True)
    return [results[row] for row in range(len(values))]


def _by_parts(values: Sequence[bytes], work: Callable[[Sequence[bytes]], list[_R]]) -> list[_R]:
    # The blocks and the numbers of a value take several times its memory.
    parts = (values[at : at + VALUES_IN_PART] for at in range(0, len(values), VALUES_IN_PART))
    return list(chain.from_iterable(map(work, parts)))


def _blocks(values: Sequence[bytes]) -> list[bytes]:
    """The blocks of values of one length: the first of every value, the second, and so on."""
    blocks, count = _split(b"".join(values)), len(values[0]) // BLOCK
    return [b"".join(blocks[place::count]) for place in range(count)]


def _values(blocks: Sequence[bytes]) -> list[bytes]:
    """The reverse of `_blocks`."""
    return list(map(b"".join, zip(*map(_split, blocks), strict=True)))


def _split(blocks: bytes) -> tuple[bytes, ...]:
    # `struct.unpack` would keep the format, which is as long as the column.
    return Struct(f"{BLOCK}s" * (len(blocks) // BLOCK)).unpack(blocks)


def _xor(one: bytes, other: bytes) -> bytes:
    # As numbers of any length: Python does this in a few nanoseconds a block.
    return (_number(one) ^ _number(other)).to_bytes(len(one), "big")


def _aes(key: bytes) -> _Aes:
    # ECB is AES alone, a block at a time: the modes of RFC 5297 are made of it here.
    return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 (a part of SIV)


def _encrypt_blocks(aes: _Aes, blocks: bytes) -> bytes:
    # A new context for each call: one that two threads share raises an error.
    return aes.encryptor().update(blocks)


def _cmac(key: bytes, message: bytes) -> bytes:
    cmac = CMAC(algorithms.AES(key))
    cmac.update(message)
    return cmac.finalize()


def _double(block: bytes) -> int:
    """The doubling of RFC 5297, 2.3."""
    doubled = _number(block) << 1
    return doubled ^ (1 << 128 | 0x87) if doubled >> 128 else doubled


def _number(blocks: bytes) -> int:
    return int.from_bytes(blocks, "big")


_NOT_WHOLE = "a value is not of whole blocks"
