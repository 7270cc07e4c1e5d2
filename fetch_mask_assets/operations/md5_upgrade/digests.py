"""MD5 digests that a table already holds, and the values that could be behind them.

MD5 is no masking: whoever reads the table can try every value. Here the same is done once more,
to put tokens in their place. Nothing in this module protects anything.

Many digests at once are computed by the steps of RFC 1321 over whole arrays; what they find is
confirmed by `hashlib`. Source: https://www.rfc-editor.org/rfc/rfc1321
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from ipaddress import IPv4Network, collapse_addresses
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.masking.canonical import IP_ADDRESS
from fetch_mask_assets.masking.fields import MaskedField

DIGEST_BYTES = 16
MAX_TEXT_LENGTH = 55
"""Bytes that fit one block of MD5 with its padding."""

MAX_SPACE = 10**12
MIN_SPACE = 1_000
"""A pattern for fewer values would name them, on a command line that others can read."""

MAX_PREFIX_LENGTH = 24
"""Bits of a prefix; a longer one would name addresses on the command line."""

# Arrays of so many lanes stay in a core's cache; tables of tails are built once for each offset.
_LANES = 32_768
_MAX_TAILS = 2**17

_MIN_PIECE = 2**20
_MAX_PIECE = 2**26
_PIECES = 1_024

_Lanes: TypeAlias = NDArray[np.uint32]


class SpaceError(FetchMaskError):
    """A space of values cannot be tried; says why, never a value."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The numbers from `start` up to and without `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        """How many numbers."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Space:
    """Numbered texts: each is one choice from every part, the last part running fastest."""

    name: str
    parts: tuple[tuple[bytes, ...], ...] = dataclass_field(repr=False)

    @property
    def size(self) -> int:
        """How many texts."""
        return math.prod(len(part) for part in self.parts)

    def text(self, number: int) -> str:
        """The text of a number."""
        return _choose(self.parts, number).decode("ascii")


_OCTET = tuple(b"%d" % number for number in range(256))
_DOT = (b".",)
IPV4 = Space("ipv4", (_OCTET, _DOT, _OCTET, _DOT, _OCTET, _DOT, _OCTET))
"""Every IPv4 address in dotted text; its number is the address."""

DEVICE_ID_PATTERN = "NNN-NN-NNNN"

_WILDCARDS: Mapping[str, str] = {
    "N": "0123456789",
    "x": "0123456789abcdef",
    "X": "0123456789ABCDEF",
}


def pattern_space(pattern: str) -> Space:
    r"""The texts of a pattern: N a digit, x or X a hex digit, `\` before a literal N, x or X.

    Raises:
        SpaceError: the pattern stands for too few, too many or too long texts.
    """
    space = Space(pattern, tuple(_parts(pattern)))
    if not pattern.isascii() or len(space.parts) > MAX_TEXT_LENGTH:
        raise SpaceError(
            f"a pattern is ASCII and stands for texts of up to {MAX_TEXT_LENGTH} bytes."
        )
    if not MIN_SPACE <= space.size <= MAX_SPACE:
        raise SpaceError(
            f"a pattern stands for {MIN_SPACE:,} to {MAX_SPACE:,} values: fewer belong"
            " into a file for --values, and more take too long to try."
        )
    return space


def network_spans(networks: Iterable[str]) -> list[Span]:
    """The addresses of IPv4 networks in CIDR notation, as spans of `IPV4`, merged and sorted.

    Raises:
        SpaceError: not an IPv4 network, or so narrow that it names addresses; carries no value.
    """
    collapsed = collapse_addresses(map(_network, networks))
    return [_span(network) for network in collapsed]


def without(wanted: Iterable[Span], done: Iterable[Span]) -> list[Span]:
    """What of the wanted spans is not in those done."""
    left = list(wanted)
    for one in done:
        left = [rest for span in left for rest in _minus(span, one)]
    return left


def pieces(spans: Iterable[Span], size: int) -> list[Span]:
    """Spans cut into pieces for the cores: enough of them to share out and to stop between.

    Args:
        spans: what to cut.
        size: how many texts the whole space has, which decides the length of a piece.
    """
    step = min(max(size // _PIECES, _MIN_PIECE), _MAX_PIECE)
    return [
        Span(start, min(start + step, span.stop))
        for span in spans
        for start in range(span.start, span.stop, step)
    ]


def worth_recording(done: Iterable[Span]) -> list[Span]:
    """Neighbours merged, and short spans left out.

    A short span is tried again in no time, and would name the values that were found in it.
    """
    merged: list[Span] = []
    for span in sorted(done):
        if merged and merged[-1].stop == span.start:
            merged[-1] = Span(merged[-1].start, span.stop)
        else:
            merged.append(span)
    return [span for span in merged if len(span) >= _MIN_PIECE]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Digests to look for, sorted, with a first filter over 32 of their bits."""

    digests: NDArray[np.uint8] = dataclass_field(repr=False)
    _keys: NDArray[np.uint64] = dataclass_field(repr=False)
    _filter: NDArray[np.bool_] = dataclass_field(repr=False)

    def __len__(self) -> int:
        """How many digests."""
        return len(self._keys)

    def lanes(self, low: _Lanes, high: _Lanes) -> NDArray[np.intp]:
        """The lanes whose 64-bit half, given as two words, is one of these digests'."""
        likely = np.flatnonzero(self._filter[low & np.uint32(len(self._filter) - 1)])
        keys = low[likely] | high[likely].astype(np.uint64) << np.uint64(32)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        hits: NDArray[np.intp] = likely[self._keys[at] == keys]
        return hits

    def place(self, digest: bytes) -> int | None:
        """Where the whole digest is among these, or None if it is not."""
        key = np.frombuffer(digest[:8], "<u8")
        first, last = (int(np.searchsorted(self._keys, key, at)[0]) for at in ("left", "right"))
        return next((at for at in range(first, last) if self._is_at(at, digest)), None)

    def _is_at(self, place: int, digest: bytes) -> bool:
        return bytes(self.digests[place]) == digest


def wanted(digests: bytes) -> Wanted:
    """Digests to look for, given one after the other, 16 bytes each."""
    table = np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES)
    keys = np.frombuffer(digests, "<u8")[::2].astype(np.uint64)
    order = np.argsort(keys)
    bits = min(max(len(keys).bit_length() + 4, 16), 30)
    is_likely = np.zeros(1 << bits, np.bool_)
    is_likely[keys & np.uint64((1 << bits) - 1)] = True
    return Wanted(table[order], keys[order], is_likely)


def search(space: Space, span: Span, targets: Wanted) -> list[int]:
    """The numbers of those texts in a span whose digest is looked for."""
    if not len(targets):
        return []
    found = [
        number
        for start, words, lanes in _blocks(space, span)
        for number in _hits(start, words, lanes, targets)
    ]
    return [number for number in found if targets.place(md5(space.text(number))) is not None]


@dataclass(frozen=True, slots=True)
class Search:
    """A space, and the spans of it that are to be tried."""

    space: Space
    spans: tuple[Span, ...]

    @property
    def size(self) -> int:
        """How many texts."""
        return sum(map(len, self.spans))


def searches(
    field: MaskedField, *, networks: Iterable[str], patterns: Iterable[str], only_named: bool
) -> tuple[Search, ...]:
    """The values to try for a field: addresses, or the texts of patterns.

    Args:
        field: the field whose digests are sought.
        networks: IPv4 networks in CIDR notation.
        patterns: as `pattern_space` reads them.
        only_named: leave out the whole of a space where no network or no pattern is given.

    Raises:
        SpaceError: a network or a pattern cannot be tried.
    """
    if field.form is IP_ADDRESS:
        spans = network_spans(networks) or ([] if only_named else [Span(0, IPV4.size)])
        return (Search(IPV4, tuple(spans)),) if spans else ()
    named = tuple(patterns) or (() if only_named else (DEVICE_ID_PATTERN,))
    return tuple(Search(space, (Span(0, space.size),)) for space in map(pattern_space, named))


def md5(text: str) -> bytes:
    """The MD5 of a text in UTF-8, as the scripts that filled such tables made it."""
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


def md5_of_lanes(words: Mapping[int, _Lanes], lanes: int) -> tuple[_Lanes, _Lanes, _Lanes, _Lanes]:
    """MD5 of one block in each lane (RFC 1321, 3.4).

    Args:
        words: the block's words by their place, 0 to 15, padding and length included; a word
            that is left out is 0 in every lane.
        lanes: how many blocks.

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
        np.right_shift(mixed, _LEFT_OVER[step], out=shifted)
        np.left_shift(mixed, _ROTATION[step], out=mixed)
        mixed |= shifted
        mixed += b
        a, d, c, b, mixed = d, c, b, mixed, a
    return a + _INITIAL[0], b + _INITIAL[1], c + _INITIAL[2], d + _INITIAL[3]


def _mix_f(b: _Lanes, c: _Lanes, d: _Lanes, out: _Lanes) -> None:
    """(b and c) or (not b and d), in three operations; `_mix_g` likewise."""
    np.bitwise_xor(c, d, out=out)
    out &= b
    out ^= d


def _mix_g(b: _Lanes, c: _Lanes, d: _Lanes, out: _Lanes) -> None:
    np.bitwise_xor(b, c, out=out)
    out &= d
    out ^= c


def _mix_h(b: _Lanes, c: _Lanes, d: _Lanes, out: _Lanes) -> None:
    np.bitwise_xor(b, c, out=out)
    out ^= d


def _mix_i(b: _Lanes, c: _Lanes, d: _Lanes, out: _Lanes) -> None:
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
_TURNS = [7, 12, 17, 22] * 4 + [5, 9, 14, 20] * 4 + [4, 11, 16, 23] * 4 + [6, 10, 15, 21] * 4
_ROTATION = tuple(np.array(_TURNS, np.uint32))
_LEFT_OVER = tuple(np.uint32(32) - turn for turn in _ROTATION)


def _hits(start: int, words: Mapping[int, _Lanes], lanes: int, targets: Wanted) -> list[int]:
    low, high, _, _ = md5_of_lanes(words, lanes)
    return [start + int(lane) for lane in targets.lanes(low, high)]


def _blocks(space: Space, span: Span) -> Iterator[tuple[int, dict[int, _Lanes], int]]:
    """The span's texts as blocks of MD5: the number of the first, the words, how many."""
    heads, tails = _split(space.parts)
    tail_count = math.prod(len(part) for part in tails)
    number = span.start
    while number < span.stop:
        head, first = divmod(number, tail_count)
        lanes = min(span.stop - number, tail_count - first, _LANES)
        yield number, _words(_choose(heads, head), tails, slice(first, first + lanes)), lanes
        number += lanes


_Parts: TypeAlias = tuple[tuple[bytes, ...], ...]


def _split(parts: _Parts) -> tuple[_Parts, _Parts]:
    """The parts whose texts are few enough to hold as a table, and those before them."""
    at = len(parts)
    while at and math.prod(len(part) for part in parts[at - 1 :]) <= _MAX_TAILS:
        at -= 1
    return parts[:at], parts[at:]


def _words(head: bytes, tails: _Parts, lanes: slice) -> dict[int, _Lanes]:
    table = _tail_words(tails, len(head))
    head_words = np.frombuffer(head.ljust(-(-len(head) // 4) * 4, b"\0"), "<u4")
    words = {place: word[lanes] for place, word in table.items()}
    for place, word in enumerate(head_words):
        words[place] = words[place] | word if place in words else np.full_like(words[14], word)
    return words


@lru_cache(maxsize=64)
def _tail_words(tails: _Parts, offset: int) -> dict[int, _Lanes]:
    """The words of every tail at an offset: its text, the end mark, the length in bits."""
    texts = [b"".join(choice) for choice in product(*tails)]
    longest = max(map(len, texts)) + 1
    marked = np.array([text + b"\x80" for text in texts], f"S{longest}")
    block = np.zeros((len(texts), 64), np.uint8)
    block[:, offset : offset + longest] = marked.view(np.uint8).reshape(-1, longest)
    block.view("<u4")[:, 14] = [8 * (offset + len(text)) for text in texts]
    words = np.ascontiguousarray(block.view("<u4").T)
    return {place: word.copy() for place, word in enumerate(words) if word.any()}


def _choose(parts: _Parts, number: int) -> bytes:
    chosen = []
    for part in reversed(parts):
        number, at = divmod(number, len(part))
        chosen.append(part[at])
    return b"".join(reversed(chosen))


def _parts(pattern: str) -> Iterator[tuple[bytes, ...]]:
    letters = iter(pattern)
    for letter in letters:
        choices = next(letters, "\\") if letter == "\\" else _WILDCARDS.get(letter, letter)
        yield tuple(choice.encode() for choice in choices)


def _network(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except ValueError:
        raise SpaceError(
            "a network is not IPv4 in CIDR notation such as 10.0.0.0/8, with no bit set past its"
            " prefix."
        ) from None
    if network.prefixlen > MAX_PREFIX_LENGTH:
        raise SpaceError(
            f"a network is narrower than /{MAX_PREFIX_LENGTH}: it names addresses, which belong"
            " into a file for --values."
        )
    return network


def _span(network: IPv4Network) -> Span:
    return Span(int(network.network_address), int(network.broadcast_address) + 1)


def _minus(span: Span, done: Span) -> Iterator[Span]:
    rest = (
        Span(span.start, min(span.stop, done.start)),
        Span(max(span.start, done.stop), span.stop),
    )
    yield from (part for part in rest if part.start < part.stop)
