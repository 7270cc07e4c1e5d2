"""The tokens of a key are in its ranges, and every other text is outside."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from fetch_mask_assets.masking.fields import MASKED_FIELDS, MaskedField
from fetch_mask_assets.masking.token import format_token
from fetch_mask_assets.operations.rotation.token_ranges import (
    TextRange,
    ranges_outside,
    ranges_under,
)

FIELDS = st.sampled_from(MASKED_FIELDS)


KEY_IDS = st.integers(0, 2**32 - 1)


@given(FIELDS, KEY_IDS, KEY_IDS, st.binary(min_size=32, max_size=32))
def test_a_token_is_in_the_ranges_of_its_key_and_of_no_other(
    field: MaskedField, one: int, other: int, sealed: bytes
) -> None:
    token = format_token(field, b"\x01" + one.to_bytes(4, "big") + sealed)
    assert _times(token, ranges_under(field, one)) == 1
    assert _times(token, ranges_outside(field, one)) == 0
    assert _times(token, ranges_under(field, other)) == (one == other)
    assert _times(token, ranges_outside(field, other)) == (one != other)


@given(FIELDS, KEY_IDS, st.text())
def test_any_text_is_in_exactly_one_range(field: MaskedField, key_id: int, text: str) -> None:
    everywhere = (*ranges_under(field, key_id), *ranges_outside(field, key_id))
    assert _times(text, everywhere) == 1


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_the_range_after_a_text_excludes_the_text_and_all_before_it(text: str) -> None:
    left = TextRange("", None).after(text)
    assert not _times(text, [left])
    assert _times(text + "\x01", [left])


def _times(text: str, ranges: Iterable[TextRange]) -> int:
    place = _bytes(text)
    return sum(
        _bytes(each.low) <= place and (each.high is None or place < _bytes(each.high))
        for each in ranges
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
