"""Search a span of a space for the texts of MD5 digests, on one core.

Digests are computed for many texts at once; `hashlib` confirms each match.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fetch_mask_assets.operations.md5_upgrade.md5 import DIGEST_BYTES, Lanes, md5, md5_of_lanes
from fetch_mask_assets.operations.md5_upgrade.spaces import Parts, Space, choose
from fetch_mask_assets.operations.md5_upgrade.spans import Span

# Arrays of this many lanes stay in a core's cache; tables of tails are built once per offset.
_LANES = 32_768
_MAX_TAILS = 2**17


@dataclass(frozen=True, slots=True)
class DigestSet:
    """The digests to search for, sorted, with a first filter over 32 of their bits."""

    digests: NDArray[np.uint8] = dataclass_field(repr=False)
    _keys: NDArray[np.uint64] = dataclass_field(repr=False)
    _filter: NDArray[np.bool_] = dataclass_field(repr=False)

    def __len__(self) -> int:
        """Return the number of digests."""
        return len(self._keys)

    def matching_lanes(self, low: Lanes, high: Lanes) -> NDArray[np.intp]:
        """Return the lanes whose first 64 bits, given as two words, match a digest's."""
        likely = np.flatnonzero(self._filter[low & np.uint32(len(self._filter) - 1)])
        keys = low[likely] | high[likely].astype(np.uint64) << np.uint64(32)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        matches: NDArray[np.intp] = likely[self._keys[at] == keys]
        return matches

    def index(self, digest: bytes) -> int | None:
        """Return the index of a digest, or None if the set does not contain it."""
        key = np.frombuffer(digest[:8], "<u8")
        first, last = (int(np.searchsorted(self._keys, key, at)[0]) for at in ("left", "right"))
        return next((at for at in range(first, last) if bytes(self.digests[at]) == digest), None)


def digest_set(digests: bytes) -> DigestSet:
    """Return the set of concatenated digests, 16 bytes each."""
    table = np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES)
    keys = np.frombuffer(digests, "<u8")[::2].astype(np.uint64)
    order = np.argsort(keys)
    bits = min(max(len(keys).bit_length() + 4, 16), 30)
    is_likely = np.zeros(1 << bits, np.bool_)
    is_likely[keys & np.uint64((1 << bits) - 1)] = True
    return DigestSet(table[order], keys[order], is_likely)


def search_span(space: Space, span: Span, targets: DigestSet) -> list[int]:
    """Return the numbers of the texts in a span whose digest is in the set."""
    if not len(targets):
        return []
    candidates = [
        number
        for start, words, lanes in _blocks(space, span)
        for number in _candidates(start, words, lanes, targets)
    ]
    return [number for number in candidates if targets.index(md5(space.text(number))) is not None]


def _candidates(
    start: int, words: Mapping[int, Lanes], lanes: int, targets: DigestSet
) -> list[int]:
    low, high, _, _ = md5_of_lanes(words, lanes)
    return [start + int(lane) for lane in targets.matching_lanes(low, high)]


def _blocks(space: Space, span: Span) -> Iterator[tuple[int, dict[int, Lanes], int]]:
    """Yield the span's texts as blocks of MD5: the first number, the words, the count."""
    heads, tails = _split(space.parts)
    tail_count = math.prod(len(part) for part in tails)
    number = span.start
    while number < span.stop:
        head, first = divmod(number, tail_count)
        lanes = min(span.stop - number, tail_count - first, _LANES)
        yield number, _words(choose(heads, head), tails, slice(first, first + lanes)), lanes
        number += lanes


def _split(parts: Parts) -> tuple[Parts, Parts]:
    """Split off the last parts, whose texts are few enough for a table."""
    at = len(parts)
    while at and math.prod(len(part) for part in parts[at - 1 :]) <= _MAX_TAILS:
        at -= 1
    return parts[:at], parts[at:]


def _words(head: bytes, tails: Parts, lanes: slice) -> dict[int, Lanes]:
    table = _tail_words(tails, len(head))
    head_words = np.frombuffer(head.ljust(-(-len(head) // 4) * 4, b"\0"), "<u4")
    words = {index: word[lanes] for index, word in table.items()}
    for index, word in enumerate(head_words):
        words[index] = words[index] | word if index in words else np.full_like(words[14], word)
    return words


@lru_cache(maxsize=64)
def _tail_words(tails: Parts, offset: int) -> dict[int, Lanes]:
    """Return the words of every tail at an offset: its text, the end mark, the length in bits."""
    texts = [b"".join(choice) for choice in product(*tails)]
    longest = max(map(len, texts)) + 1
    marked = np.array([text + b"\x80" for text in texts], f"S{longest}")
    block = np.zeros((len(texts), 64), np.uint8)
    block[:, offset : offset + longest] = marked.view(np.uint8).reshape(-1, longest)
    block.view("<u4")[:, 14] = [8 * (offset + len(text)) for text in texts]
    words = np.ascontiguousarray(block.view("<u4").T)
    return {index: word.copy() for index, word in enumerate(words) if word.any()}
