"""Spaces of candidate values: IPv4 addresses, networks and device id patterns."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetch_mask_assets.masking.fields import DEVICE_ID, IP
from fetch_mask_assets.operations.md5_upgrade.spaces import (
    IPV4,
    MAX_SPACE,
    SpaceError,
    network_spans,
    pattern_space,
    plan_searches,
)
from fetch_mask_assets.operations.md5_upgrade.spans import Span


@given(st.integers(0, 2**32 - 1))
def test_the_number_of_an_ipv4_text_is_its_address(number: int) -> None:
    assert IPV4.text(number) == str(IPv4Address(number))


def test_wildcards_and_escapes_of_a_pattern_give_its_texts() -> None:
    texts = pattern_space(r"N-x\X\N\\XX")
    assert texts.text(0) == r"0-0XN\00"
    assert texts.text(texts.size - 1) == r"9-fXN\FF"
    assert texts.size == 10 * 16 * 16 * 16


@pytest.mark.parametrize(
    "pattern", ["123-45-6789", "NN", "", "N" * 13, "-" * 52 + "NNNN", "éNNNN", "N" * 60]
)
def test_a_pattern_with_too_few_or_too_many_values_is_refused_without_a_quote(pattern: str) -> None:
    with pytest.raises(SpaceError) as refusal:
        pattern_space(pattern)
    assert not pattern or pattern not in str(refusal.value)


def test_the_largest_pattern_is_accepted() -> None:
    assert pattern_space("N" * 12).size == MAX_SPACE


def test_networks_become_merged_spans_of_addresses() -> None:
    spans = network_spans(["10.0.1.0/24", "192.168.0.0/16", "10.0.0.0/24"])
    assert [(IPV4.text(span.start), IPV4.text(span.stop - 1)) for span in spans] == [
        ("10.0.0.0", "10.0.1.255"),
        ("192.168.0.0", "192.168.255.255"),
    ]


def test_the_whole_of_ipv4_is_a_network() -> None:
    assert network_spans(["0.0.0.0/0"]) == [Span(0, 2**32)]


@pytest.mark.parametrize("network", ["10.1.2.3", "10.1.2.0/25", "10.1.2.3/8", "fe80::/10", "ten"])
def test_an_invalid_or_narrow_network_is_refused_without_a_quote(
    network: str,
) -> None:
    with pytest.raises(SpaceError) as refusal:
        network_spans([network])
    assert network not in str(refusal.value)


def test_by_default_every_ipv4_address_and_every_id_of_the_default_pattern_is_tried() -> None:
    [addresses] = plan_searches(IP, networks=(), patterns=(), only_given=False)
    [ids] = plan_searches(DEVICE_ID, networks=(), patterns=(), only_given=False)
    assert (addresses.size, ids.size, ids.space.name) == (2**32, 10**9, "NNN-NN-NNNN")


def test_only_given_networks_and_patterns_are_tried() -> None:
    networks, patterns = ["10.0.0.0/8"], ["NNN-NNN", "NNNN"]
    [addresses] = plan_searches(IP, networks=networks, patterns=patterns, only_given=True)
    ids = plan_searches(DEVICE_ID, networks=networks, patterns=patterns, only_given=True)
    assert addresses.size == 2**24
    assert [each.space.name for each in ids] == patterns
    assert plan_searches(IP, networks=(), patterns=patterns, only_given=True) == ()
