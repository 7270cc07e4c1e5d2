"""The values behind MD5 digests: every text of a space is tried, none is made up."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.masking.fields import DEVICE_ID, IP
from fetch_mask_assets.operations.md5_upgrade.digests import (
    IPV4,
    MAX_SPACE,
    Space,
    SpaceError,
    Span,
    md5,
    md5_of_lanes,
    network_spans,
    pattern_space,
    pieces,
    search,
    searches,
    wanted,
    without,
    worth_recording,
)

# RFC 1321, A.5: those that fit one block.
RFC_1321 = {
    "": "d41d8cd98f00b204e9800998ecf8427e",
    "a": "0cc175b9c0f1b6a831c399e269772661",
    "abc": "900150983cd24fb0d6963f7d28e17f72",
    "message digest": "f96b697d7cb7938d525a2f31aaf161d0",
    "abcdefghijklmnopqrstuvwxyz": "c3fcd3d76192e4007dfb496cca67e13b",
}

_SHORT = st.binary(max_size=55)
_SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=6).map(
    lambda pairs: [Span(start, start + length) for start, length in pairs]
)


def _lanes_md5(texts: list[bytes]) -> list[bytes]:
    blocks = b"".join(
        (text + b"\x80").ljust(56, b"\0") + (8 * len(text)).to_bytes(8, "little") for text in texts
    )
    words = np.frombuffer(blocks, "<u4").reshape(-1, 16).T.copy()
    digests = np.stack(md5_of_lanes(dict(enumerate(words)), len(texts)), axis=1).astype("<u4")
    return [line.tobytes() for line in digests]


def _digests(*texts: str) -> bytes:
    return b"".join(map(md5, texts))


def test_the_published_digests_come_out() -> None:
    assert [digest.hex() for digest in _lanes_md5([text.encode() for text in RFC_1321])] == list(
        RFC_1321.values()
    )


@given(st.lists(_SHORT, min_size=1, max_size=20))
def test_many_at_once_are_what_hashlib_makes_of_each(texts: list[bytes]) -> None:
    expected = [hashlib.md5(text, usedforsecurity=False).digest() for text in texts]
    assert _lanes_md5(texts) == expected


@given(st.integers(0, 2**32 - 1))
def test_the_number_of_an_ipv4_text_is_its_address(number: int) -> None:
    assert IPV4.text(number) == str(IPv4Address(number))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_every_address_is_found_in_a_span_that_ends_or_begins_with_it(number: int) -> None:
    targets = wanted(_digests(str(IPv4Address(number))))
    assert search(IPV4, Span(max(0, number - 3), number + 1), targets) == [number]
    assert search(IPV4, Span(number, min(number + 3, 2**32)), targets) == [number]
    assert search(IPV4, Span(max(0, number - 3), number), targets) == []


def test_all_texts_of_a_long_span_are_tried_across_every_boundary() -> None:
    span = Span(2**24 - 70_000, 2**24 + 70_000)
    targets = wanted(_digests(*map(IPV4.text, range(span.start, span.stop))))
    assert search(IPV4, span, targets) == list(range(span.start, span.stop))


@pytest.mark.parametrize("pattern", ["NNN-NN-NNNN", "NNNNNN", "xxxx-XX", "id NNNNNN!", "N" * 9])
def test_texts_of_a_pattern_are_found_at_its_ends_and_in_its_middle(pattern: str) -> None:
    space = pattern_space(pattern)
    places = [0, 1, 99_999, 100_000, space.size // 2, space.size - 1]
    targets = wanted(_digests(*map(space.text, places)))
    for place in places:
        span = Span(max(0, place - 5), min(place + 5, space.size))
        assert place in search(space, span, targets)


def test_a_pattern_of_the_longest_text_is_hashed_right() -> None:
    space = pattern_space("-" * 51 + "NNNN")
    targets = wanted(_digests("-" * 51 + "0042"))
    assert search(space, Span(0, 100), targets) == [42]


def test_a_pattern_stands_for_the_texts_that_its_letters_say() -> None:
    texts = pattern_space(r"N-x\X\N\\XX")
    assert texts.text(0) == r"0-0XN\00"
    assert texts.text(texts.size - 1) == r"9-fXN\FF"
    assert texts.size == 10 * 16 * 16 * 16


@pytest.mark.parametrize(
    "pattern", ["123-45-6789", "NN", "", "N" * 13, "-" * 52 + "NNNN", "éNNNN", "N" * 60]
)
def test_a_pattern_that_names_values_or_takes_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(SpaceError) as refusal:
        pattern_space(pattern)
    assert not pattern or pattern not in str(refusal.value)


def test_the_largest_pattern_is_accepted() -> None:
    assert pattern_space("N" * 12).size == MAX_SPACE


def test_networks_are_spans_of_addresses_merged() -> None:
    spans = network_spans(["10.0.1.0/24", "192.168.0.0/16", "10.0.0.0/24"])
    assert [(IPV4.text(span.start), IPV4.text(span.stop - 1)) for span in spans] == [
        ("10.0.0.0", "10.0.1.255"),
        ("192.168.0.0", "192.168.255.255"),
    ]


def test_the_whole_of_ipv4_is_a_network() -> None:
    assert network_spans(["0.0.0.0/0"]) == [Span(0, 2**32)]


@pytest.mark.parametrize("network", ["10.1.2.3", "10.1.2.0/25", "10.1.2.3/8", "fe80::/10", "ten"])
def test_a_network_that_names_an_address_or_is_none_is_refused_without_saying_it(
    network: str,
) -> None:
    with pytest.raises(SpaceError) as refusal:
        network_spans([network])
    assert network not in str(refusal.value)


def test_a_digest_that_shares_its_first_half_is_told_apart() -> None:
    genuine = md5("10.0.0.7")
    twin = genuine[:8] + bytes(8)
    assert search(IPV4, Span(10 << 24, (10 << 24) + 99), wanted(twin)) == []
    assert wanted(twin + genuine).place(genuine) is not None
    assert wanted(twin).place(genuine) is None


def test_nothing_to_look_for_finds_nothing() -> None:
    assert search(IPV4, Span(0, 10), wanted(b"")) == []
    assert wanted(b"").place(md5("")) is None


def test_a_search_shows_no_digest_of_what_it_looks_for() -> None:
    assert repr(wanted(_digests("10.0.0.7"))) == "Wanted()"


@given(_SPANS, _SPANS)
def test_what_is_left_is_what_was_wanted_and_not_done(asked: list[Span], done: list[Span]) -> None:
    left = without(asked, done)
    assert _numbers(left) == _numbers(asked) - _numbers(done)


def test_pieces_are_the_spans_in_order_none_too_long() -> None:
    spans = [Span(0, 3), Span(10, 10 + 2**22 + 1)]
    cut = pieces(spans, IPV4.size)
    assert cut == [Span(0, 3), Span(10, 10 + 2**22), Span(10 + 2**22, 11 + 2**22)]


def test_only_spans_too_long_to_name_a_value_are_worth_recording() -> None:
    done = [Span(2**21, 2**21 + 9), Span(2**20, 2**21), Span(0, 2**20), Span(2**30, 2**30 + 1)]
    assert worth_recording(done) == [Span(0, 2**21 + 9)]


def test_by_default_every_ipv4_address_and_every_id_of_the_usual_shape_is_tried() -> None:
    [addresses] = searches(IP, networks=(), patterns=(), only_named=False)
    [ids] = searches(DEVICE_ID, networks=(), patterns=(), only_named=False)
    assert (addresses.size, ids.size, ids.space.name) == (2**32, 10**9, "NNN-NN-NNNN")


def test_what_is_named_is_all_that_is_tried() -> None:
    networks, patterns = ["10.0.0.0/8"], ["NNN-NNN", "NNNN"]
    [addresses] = searches(IP, networks=networks, patterns=patterns, only_named=True)
    ids = searches(DEVICE_ID, networks=networks, patterns=patterns, only_named=True)
    assert addresses.size == 2**24
    assert [each.space.name for each in ids] == patterns
    assert searches(IP, networks=(), patterns=patterns, only_named=True) == ()


def test_texts_of_different_lengths_may_stand_side_by_side() -> None:
    space = Space("mixed", ((b"", b"a", b"abcdefgh"), (b"x", b"yz"), (b"", b"1", b"22")))
    texts = [space.text(number) for number in range(space.size)]
    assert len(set(texts)) == space.size
    found = search(space, Span(0, space.size), wanted(_digests(*texts)))
    assert found == list(range(space.size))


def _numbers(spans: list[Span]) -> set[int]:
    return {number for span in spans for number in range(span.start, span.stop)}
