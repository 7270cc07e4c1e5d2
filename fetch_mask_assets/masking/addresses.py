"""The IP addresses that stand in a text, in whatever spelling and whatever surrounds them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fetch_mask_assets.masking.canonical import pack_ip

_QUAD = re.compile(r"(?<!\d)\d{1,3}(?:\.\d{1,3}){3}(?!\d)", re.ASCII)
_RUN = re.compile(r"[0-9A-Fa-f:.]+")
_MAX_RUN_SECONDS = 64


def addresses_in(text: str) -> set[bytes]:
    """The addresses that stand in a text, by their canonical forms of 16 bytes."""
    runs = [run for run in _RUN.findall(text) if ":" in run and len(run) <= _MAX_RUN_SECONDS]
    candidates = {*_QUAD.findall(text), *(part for run in runs for part in _parts(run))}
    return set().union(*map(packed, candidates))


def packed(text: str) -> set[bytes]:
    """The canonical form of an address; empty if the text is none."""
    try:
        return {pack_ip(text)}
    except ValueError:
        return set()


def _parts(run: str) -> Iterator[str]:
    """What of a run of hexadecimal groups may be an address: without what was glued to it."""
    groups = run.strip(".").split(":")
    for start in range(min(3, len(groups))):
        for end in range(max(len(groups) - 2, start + 1), len(groups) + 1):
            yield ":".join(groups[start:end])
