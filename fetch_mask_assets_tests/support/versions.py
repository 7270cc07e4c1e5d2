"""The text of a version's number, as the view readable_logins has it."""

from __future__ import annotations


def version_text(number: int) -> str:
    """`major.minor.patch` of a version number."""
    rest, patch = divmod(number, 1_000)
    major, minor = divmod(rest, 1_000)
    return f"{major}.{minor}.{patch}"
