"""AES-SIV (RFC 5297) over columns: the output of Tink's cipher for each value, in fewer calls.

The cipher is AES in ECB mode and CMAC, both of `cryptography`; this module is the mode of
operation over a column. It makes one call of AES for each block position, where Tink makes a call
for each value. `FieldMasker` compares a sample of every column with Tink.
Source: https://www.rfc-editor.org/rfc/rfc5297 and https://www.rfc-editor.org/rfc/rfc4493
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import numpy as np
import polars as pl
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from fetch_mask_assets.masking.byte_columns import ByteMatrix, to_bytes, to_matrix
from fetch_mask_assets.masking.canonical import BLOCK

_Aes = Cipher[modes.ECB]

# RFC 5297, 2.5: bits 31 and 63 of the counter are cleared, so that a word of 32 bits counts on
# without a carry.
_CLEARED_BYTES = [8, 12]
_CLEAR_TOP_BIT = 0x7F

_NO_BYTES = pl.Series([None], dtype=pl.Binary)
_NULL = -1
"""In the place of the length of a null."""


@dataclass(frozen=True, slots=True, eq=False)
class SivColumns:
    """One key of AES-SIV with one associated data, under Tink's prefix for the key.

    It takes values of whole blocks of 16 bytes, at least one: every canonical form is of such.
    """

    prefix: bytes
    _mac: _Aes = dataclass_field(repr=False)
    _counter: _Aes = dataclass_field(repr=False)
    _last_block: ByteMatrix = dataclass_field(repr=False)

    def encrypt(self, values: pl.Series) -> pl.Series:
        """The ciphertext of each value: prefix, synthetic IV, encrypted value; null stays null.

        Args:
            values: binary, of any number of whole blocks each.

        Raises:
            ValueError: a value is not of whole blocks; carries no value.
        """
        return _by_length(values, self._encrypt)

    def decrypt(self, ciphertexts: pl.Series) -> pl.Series:
        """The value of each ciphertext; null for bytes that `encrypt` does not make of any value.

        Args:
            ciphertexts: binary, genuine or not.
        """
        own = pl.col("ciphertext").bin.starts_with(self.prefix)
        sealed = pl.col("ciphertext").bin.slice(len(self.prefix))
        is_whole = (sealed.bin.size() >= 2 * BLOCK) & (sealed.bin.size() % BLOCK == 0)
        frame = ciphertexts.to_frame("ciphertext").select(pl.when(own & is_whole).then(sealed))
        return _by_length(frame.to_series(), self._decrypt)

    def _encrypt(self, values: ByteMatrix) -> pl.Series:
        iv = self._synthetic_iv(values)
        prefix = np.frombuffer(self.prefix, np.uint8)
        prefixes = np.broadcast_to(prefix, (len(iv), len(prefix)))
        return to_bytes(np.hstack([prefixes, iv, values ^ self._key_stream(iv, values.shape[1])]))

    def _decrypt(self, sealed: ByteMatrix) -> pl.Series:
        iv, encrypted = sealed[:, :BLOCK], sealed[:, BLOCK:]
        values = encrypted ^ self._key_stream(iv, encrypted.shape[1])
        is_genuine = (iv == self._synthetic_iv(values)).all(axis=1)
        return to_bytes(values).zip_with(pl.Series(is_genuine), _NO_BYTES)

    def _synthetic_iv(self, values: ByteMatrix) -> ByteMatrix:
        """S2V of RFC 5297, 2.4: the CMAC of the value, whose last block is masked."""
        *blocks, last = np.split(values, values.shape[1] // BLOCK, axis=1)
        mac = np.zeros_like(last)
        for block in (*blocks, last ^ self._last_block):
            mac = _encrypt_blocks(self._mac, mac ^ block)
        return mac

    def _key_stream(self, iv: ByteMatrix, length: int) -> ByteMatrix:
        """As many bytes of key stream for each IV (RFC 5297, 2.5)."""
        counters = np.repeat(iv[:, np.newaxis], length // BLOCK, axis=1)
        counters[..., _CLEARED_BYTES] &= _CLEAR_TOP_BIT
        counters.view(">u4")[..., -1] += np.arange(length // BLOCK, dtype=np.uint32)
        return _encrypt_blocks(self._counter, counters).reshape(len(iv), length)


def siv_columns(key: bytes, associated_data: bytes, prefix: bytes) -> SivColumns:
    """The cipher of a key of 64 bytes, whose halves are the keys of MAC and encryption.

    Args:
        key: the key of an AES-256-SIV keyset. It is not shown by any repr of the result.
        associated_data: bound into each ciphertext.
        prefix: the first bytes of every ciphertext, such as Tink's with the key's id.
    """
    mac_key, counter_key = key[: len(key) // 2], key[len(key) // 2 :]
    data_mac = _double(_cmac(mac_key, bytes(BLOCK))) ^ _number(_cmac(mac_key, associated_data))
    mac = _aes(mac_key)
    subkey = _double(mac.encryptor().update(bytes(BLOCK)))
    last_block = np.frombuffer((data_mac ^ subkey).to_bytes(BLOCK, "big"), np.uint8)
    return SivColumns(prefix, mac, _aes(counter_key), last_block)


def _by_length(column: pl.Series, work: Callable[[ByteMatrix], pl.Series]) -> pl.Series:
    """The results of `work` for the values of each length, in the order of the column."""
    size = pl.col("value").bin.size().cast(pl.Int64).fill_null(_NULL)
    lengths = column.to_frame("value").select(size).to_series().to_numpy()
    rows = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
    parts = [_results(column.gather(each), int(lengths[each[0]]), work) for each in rows]
    order = np.argsort(np.concatenate([np.empty(0, np.int64), *rows]))
    return pl.concat([_NO_BYTES.clear(), *parts]).gather(order)


def _results(values: pl.Series, length: int, work: Callable[[ByteMatrix], pl.Series]) -> pl.Series:
    if length == _NULL:
        return values
    if length == 0 or length % BLOCK:
        raise ValueError("a value is not of whole blocks")
    return work(to_matrix(values, length))


def _aes(key: bytes) -> _Aes:
    # ECB is AES alone, a block at a time: the modes of RFC 5297 are made of it here.
    return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 (a part of SIV)


def _encrypt_blocks(aes: _Aes, blocks: ByteMatrix) -> ByteMatrix:
    # A new context for each call: one that two threads share raises an error.
    encrypted = aes.encryptor().update(np.ascontiguousarray(blocks).data.cast("B"))
    return np.frombuffer(encrypted, np.uint8).reshape(blocks.shape)


def _cmac(key: bytes, message: bytes) -> bytes:
    cmac = CMAC(algorithms.AES(key))
    cmac.update(message)
    return cmac.finalize()


def _double(block: bytes) -> int:
    """The doubling of RFC 5297, 2.3."""
    doubled = _number(block) << 1
    return doubled ^ (1 << 128 | 0x87) if doubled >> 128 else doubled


def _number(block: bytes) -> int:
    return int.from_bytes(block, "big")
