"""MD5 of one text, and of many texts at once.

MD5 protects nothing here: the upgrade recovers the values behind existing digests. Many digests at
once are computed with NumPy arrays, one lane for each text.
Source: https://www.rfc-editor.org/rfc/rfc1321
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16
MAX_TEXT_BYTES = 55
"""Bytes that fit one block of MD5 with its padding."""

Lanes: TypeAlias = NDArray[np.uint32]
"""One 32-bit word for each text."""


def md5(text: str) -> bytes:
    """Return the MD5 of a text in UTF-8."""
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


def md5_of_lanes(words: Mapping[int, Lanes], lanes: int) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """Return the MD5 of one block in each lane (RFC 1321, 3.4).

    Args:
        words: the block's words by index, 0 to 15, padding and length included; a word that is
            left out is 0 in every lane.
        lanes: the number of blocks.

    Returns:
        The four words of the digests, whose little-endian bytes are the digest.
    """
    a, b, c, d = (np.full(lanes, word, np.uint32) for word in _INITIAL)
    mixed, shifted = np.empty(lanes, np.uint32), np.empty(lanes, np.uint32)
    for step in range(64):
        _MIX[step // 16](b, c, d, mixed)
        mixed += a
        mixed += _SINES[step]
        if (word := words.get(_WORD[step])) is not None:
            mixed += word
        np.right_shift(mixed, _RIGHT_SHIFT[step], out=shifted)
        np.left_shift(mixed, _LEFT_SHIFT[step], out=mixed)
        mixed |= shifted
        mixed += b
        a, d, c, b, mixed = d, c, b, mixed, a
    return a + _INITIAL[0], b + _INITIAL[1], c + _INITIAL[2], d + _INITIAL[3]


def _mix_f(b: Lanes, c: Lanes, d: Lanes, out: Lanes) -> None:
    """Compute (b and c) or (not b and d), in three operations; `_mix_g` likewise."""
    np.bitwise_xor(c, d, out=out)
    out &= b
    out ^= d


def _mix_g(b: Lanes, c: Lanes, d: Lanes, out: Lanes) -> None:
    np.bitwise_xor(b, c, out=out)
    out &= d
    out ^= c


def _mix_h(b: Lanes, c: Lanes, d: Lanes, out: Lanes) -> None:
    np.bitwise_xor(b, c, out=out)
    out ^= d


def _mix_i(b: Lanes, c: Lanes, d: Lanes, out: Lanes) -> None:
    np.invert(d, out=out)
    out |= b
    out ^= c


_MIX = (_mix_f, _mix_g, _mix_h, _mix_i)
_INITIAL = tuple(np.array([0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476], np.uint32))
_SINES = tuple(np.array([int(abs(math.sin(i)) * 2**32) for i in range(1, 65)], np.uint32))
_WORD = (
    *range(16),
    *((5 * i + 1) % 16 for i in range(16)),
    *((3 * i + 5) % 16 for i in range(16)),
    *(7 * i % 16 for i in range(16)),
)
_ROTATIONS = [7, 12, 17, 22] * 4 + [5, 9, 14, 20] * 4 + [4, 11, 16, 23] * 4 + [6, 10, 15, 21] * 4
_LEFT_SHIFT = tuple(np.array(_ROTATIONS, np.uint32))
_RIGHT_SHIFT = tuple(np.uint32(32) - rotation for rotation in _LEFT_SHIFT)
