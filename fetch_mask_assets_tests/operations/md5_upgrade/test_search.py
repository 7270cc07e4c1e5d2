"""A search finds every text of a span whose digest is in the set, and no other."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.operations.md5_upgrade.md5 import md5
from fetch_mask_assets.operations.md5_upgrade.search import digest_set, search_span
from fetch_mask_assets.operations.md5_upgrade.spaces import IPV4, Space, pattern_space
from fetch_mask_assets.operations.md5_upgrade.spans import Span


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_an_address_is_found_at_both_ends_of_a_span_and_not_outside(number: int) -> None:
    targets = digest_set(_digests(str(IPv4Address(number))))
    assert search_span(IPV4, Span(max(0, number - 3), number + 1), targets) == [number]
    assert search_span(IPV4, Span(number, min(number + 3, 2**32)), targets) == [number]
    assert search_span(IPV4, Span(max(0, number - 3), number), targets) == []


def test_all_texts_of_a_long_span_are_tried_across_block_boundaries() -> None:
    span = Span(2**24 - 70_000, 2**24 + 70_000)
    targets = digest_set(_digests(*map(IPV4.text, range(span.start, span.stop))))
    assert search_span(IPV4, span, targets) == list(range(span.start, span.stop))


@pytest.mark.parametrize("pattern", ["NNN-NN-NNNN", "NNNNNN", "xxxx-XX", "id NNNNNN!", "N" * 9])
def test_texts_of_a_pattern_are_found_at_both_ends_and_in_the_middle(pattern: str) -> None:
    space = pattern_space(pattern)
    places = [0, 1, 99_999, 100_000, space.size // 2, space.size - 1]
    targets = digest_set(_digests(*map(space.text, places)))
    for place in places:
        span = Span(max(0, place - 5), min(place + 5, space.size))
        assert place in search_span(space, span, targets)


def test_texts_of_the_maximum_length_are_found() -> None:
    space = pattern_space("-" * 51 + "NNNN")
    targets = digest_set(_digests("-" * 51 + "0042"))
    assert search_span(space, Span(0, 100), targets) == [42]


def test_texts_of_different_lengths_are_found_in_one_space() -> None:
    space = Space("mixed", ((b"", b"a", b"abcdefgh"), (b"x", b"yz"), (b"", b"1", b"22")))
    texts = [space.text(number) for number in range(space.size)]
    assert len(set(texts)) == space.size
    found = search_span(space, Span(0, space.size), digest_set(_digests(*texts)))
    assert found == list(range(space.size))


def test_a_digest_with_an_equal_first_half_does_not_match() -> None:
    genuine = md5("10.0.0.7")
    twin = genuine[:8] + bytes(8)
    assert search_span(IPV4, Span(10 << 24, (10 << 24) + 99), digest_set(twin)) == []
    assert digest_set(twin + genuine).index(genuine) is not None
    assert digest_set(twin).index(genuine) is None


def test_an_empty_digest_set_matches_nothing() -> None:
    assert search_span(IPV4, Span(0, 10), digest_set(b"")) == []
    assert digest_set(b"").index(md5("")) is None


def test_the_repr_of_a_digest_set_shows_no_digest() -> None:
    assert repr(digest_set(_digests("10.0.0.7"))) == "DigestSet()"


def _digests(*texts: str) -> bytes:
    return b"".join(map(md5, texts))
