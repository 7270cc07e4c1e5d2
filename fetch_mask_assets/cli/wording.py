"""Numbers and times as text."""

from __future__ import annotations

from datetime import UTC, datetime


def counted(number: int, one: str, many: str) -> str:
    """A number and its noun: `1 message`, `2 messages`."""
    return f"{number} {one if number == 1 else many}"


def utc_time(at: datetime) -> str:
    """A time in UTC, to the second: `2026-01-31 12:00:00 UTC`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def printable(text: str) -> str:
    """Text for a terminal: characters that are not printable become escape sequences."""
    return "".join(
        character if character.isprintable() else _escaped(character) for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
