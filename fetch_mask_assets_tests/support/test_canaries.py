"""The search for raw values finds each form of each, wherever it lies."""

from __future__ import annotations

import codecs
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import quote

import pytest

from fetch_mask_assets_tests.support.canaries import forms, raw_values

CANARIES = ("203.0.113.213", "2001:db8:5eaf::c0de:77", "gerät-kanarie-0815", "canary-device-4711")


@pytest.mark.parametrize(
    "hidden",
    [
        str.encode,
        lambda value: value.encode("utf-16-le"),
        lambda value: ascii(value)[1:-1].replace("\\xe4", "\\u00e4").encode(),
        lambda value: value.encode()[::-1],
        lambda value: codecs.encode(value.encode(), "hex"),
        lambda value: codecs.encode(value.encode(), "hex").upper(),
        lambda value: b64encode(value.encode()),
        lambda value: b64encode(b"x" + value.encode() + b"yz"),
        lambda value: b64encode(b"xy" + value.encode() + b"z"),
        lambda value: urlsafe_b64encode(b"xy\xff\xfe" + value.encode()),
        lambda value: b64encode(value.encode("utf-16-le")),
        lambda value: quote(value, safe="").encode(),
        lambda value: "".join(f"%{byte:02X}" for byte in value.encode()).encode(),
    ],
    ids=[
        "text", "utf-16", "json", "reversed", "hex", "HEX", "base64", "base64 + 1", "base64 + 2",
        "base64url", "base64 of utf-16", "url", "url whole",
    ],
)  # fmt: skip
@pytest.mark.parametrize("canary", CANARIES, ids=range(len(CANARIES)))
def test_a_planted_value_is_found(canary: str, hidden: Callable[[str], bytes]) -> None:
    planted = b"before \x00" + hidden(canary) + b"\xff after"

    assert any(form in planted for form in forms(canary))


@pytest.mark.parametrize("canary", ["2001:db8:5eaf::c0de:77", "::ffff:203.0.113.213"])
def test_packed_addresses_are_found(canary: str) -> None:
    packed = ip_address(canary).packed
    targets = forms(canary.removeprefix("::ffff:"))

    for planted in (packed, packed[::-1], packed.hex().encode(), b64encode(packed)):
        assert any(form in planted for form in targets)


def test_the_start_of_addresses_stands_for_all_of_them() -> None:
    for planted in (b"203.0.113.7", ip_address("::ffff:203.0.113.7").packed):
        assert raw_values(b"before " + planted + b" after", ["203.0.113."]) == 1


def test_each_raw_value_counts_once() -> None:
    text = b"203.0.113.213, canary-device-4711 and 203.0.113.213"

    assert raw_values(text, ["203.0.113.213", "canary-device-4711", "not there"]) == 3


@pytest.mark.parametrize("planted", [b"cb0071d5", b"CB0071D5", b"3405803989"])
def test_an_ipv4_address_is_found_as_digits_and_as_a_number(planted: bytes) -> None:
    assert raw_values(b"before " + planted + b" after", ["203.0.113.213"]) == 1


def test_no_form_is_short_enough_to_occur_by_chance() -> None:
    lengths = {len(form) for canary in CANARIES for form in forms(canary)}
    # Eight hexadecimal digits and ten decimal ones of the one IPv4 address.
    assert min(lengths - {8, 10}) >= 12
