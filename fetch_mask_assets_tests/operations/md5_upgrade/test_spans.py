"""Spans are subtracted, split and merged without the loss of a number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fetch_mask_assets.operations.md5_upgrade.spaces import IPV4
from fetch_mask_assets.operations.md5_upgrade.spans import (
    Span,
    recordable_spans,
    split_spans,
    subtract_spans,
)

_SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=6).map(
    lambda pairs: [Span(start, start + length) for start, length in pairs]
)


@given(_SPANS, _SPANS)
def test_subtraction_leaves_the_numbers_that_are_not_done(
    spans: list[Span], done: list[Span]
) -> None:
    left = subtract_spans(spans, done)
    assert _numbers(left) == _numbers(spans) - _numbers(done)


def test_pieces_cover_the_spans_in_order_and_are_bounded() -> None:
    spans = [Span(0, 3), Span(10, 10 + 2**22 + 1)]
    cut = split_spans(spans, IPV4.size)
    assert cut == [Span(0, 3), Span(10, 10 + 2**22), Span(10 + 2**22, 11 + 2**22)]


def test_spans_that_would_identify_a_value_are_not_recorded() -> None:
    done = [Span(2**21, 2**21 + 9), Span(2**20, 2**21), Span(0, 2**20), Span(2**30, 2**30 + 1)]
    assert recordable_spans(done) == [Span(0, 2**21 + 9)]


def _numbers(spans: list[Span]) -> set[int]:
    return {number for span in spans for number in range(span.start, span.stop)}
