"""An app version as one number that keeps its order and can be read back."""

from __future__ import annotations

import re

INT4_MAX = 2**31 - 1

_STEP = 1_000
_VERSION = re.compile(r"(\d{1,10})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?", re.ASCII)


def version_number(text: str) -> int | None:
    """`major * 1_000_000 + minor * 1_000 + patch`, missing parts 0.

    Returns:
        None for a text that has no such number: a suffix, a fourth part, a part over 999,
        or a major that a Postgres integer cannot hold.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    major, minor, patch = (int(part or 0) for part in match.groups())
    number = (major * _STEP + minor) * _STEP + patch
    return number if number <= INT4_MAX else None
