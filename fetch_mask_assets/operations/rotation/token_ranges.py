"""Ranges of texts, in byte order, that contain the tokens of a key."""

from __future__ import annotations

from dataclasses import dataclass

from fetch_mask_assets.masking.fields import MaskedField
from fetch_mask_assets.masking.token import key_heads

# Postgres allows no NUL in a text, so no text is between a text and the same text with this suffix.
_MIN_CHARACTER = "\x01"


@dataclass(frozen=True, slots=True)
class TextRange:
    """Texts from `low` up to and without `high`, in byte order; `high` None is unbounded."""

    low: str
    high: str | None

    def after(self, text: str) -> TextRange:
        """Return the part of the range after one of its texts."""
        return TextRange(text + _MIN_CHARACTER, self.high)


ALL_TEXTS = TextRange("", None)


def ranges_under(field: MaskedField, key_id: int) -> tuple[TextRange, ...]:
    """Return the ranges that contain the tokens of a key and no others."""
    return tuple(TextRange(head, _successor(head)) for head in key_heads(field, key_id))


def ranges_outside(field: MaskedField, key_id: int) -> tuple[TextRange, ...]:
    """Return the ranges of all texts that are not in `ranges_under`."""
    inside = ranges_under(field, key_id)
    lows = ["", *(each.high for each in inside)]
    highs = [*(each.low for each in inside), None]
    gaps = zip(lows, highs, strict=True)
    return tuple(TextRange(low, high) for low, high in gaps if low is not None and low != high)


def _successor(prefix: str) -> str:
    """Return the first text, in byte order, after all texts with a prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
