"""How long it takes to reverse an MD5 on this machine: measured, not remembered."""

from __future__ import annotations

import os
import time

from fetch_mask_assets.operations.md5_upgrade.search import DigestSet, digest_set, search_span
from fetch_mask_assets.operations.md5_upgrade.spaces import (
    DEVICE_ID_PATTERN,
    IPV4,
    Space,
    pattern_space,
)
from fetch_mask_assets.operations.md5_upgrade.spans import Span
from fetch_mask_assets.operations.md5_upgrade.workers import usable_cores
from fetch_mask_assets.operations.report.report import Space as TimedSpace
from fetch_mask_assets.operations.report.report import StrengthPart

MEASURED_SECONDS = 0.5
"""How long each space is tried, on one core."""

# Enough for the search to do what it does in earnest; how many there are hardly matters.
_LOOKED_FOR = 1_000
_PIECE = 2**18


def measure_md5(seconds: float = MEASURED_SECONDS) -> StrengthPart:
    """Searches both spaces with the engine of `upgrade-md5` for random digests, for a while."""
    targets = digest_set(os.urandom(16 * _LOOKED_FOR))
    spaces = (IPV4, pattern_space(DEVICE_ID_PATTERN))
    timed = (TimedSpace(space.name, space.size, _rate(space, targets, seconds)) for space in spaces)
    return StrengthPart(seconds, usable_cores(), tuple(timed))


def _rate(space: Space, targets: DigestSet, seconds: float) -> float:
    search_span(space, Span(0, _PIECE), targets)  # builds the tables of the space
    tried, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds or not tried:
        start = (_PIECE + tried) % (space.size - _PIECE)
        search_span(space, Span(start, start + _PIECE), targets)
        tried += _PIECE
    return tried / took
