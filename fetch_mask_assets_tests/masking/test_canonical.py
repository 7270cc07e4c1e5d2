"""Equal values take one form of bytes, and come back from it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fetch_mask_assets.masking.addresses import pack_ip, unpack_ip
from fetch_mask_assets.masking.canonical import pad_text, unpad_text
from fetch_mask_assets_tests.support.factories import shown

NOT_IPS = (
    "",
    " ",
    "192.0.2",
    "192.0.2.1.1",
    "192.0.2.256",
    "256.1.1.1",
    "192.0.2.-1",
    "192.0.2.1:80",
    "192.0.2.1/32",
    " 192.0.2.1",
    "192.0.2.1 ",
    "192.0.2.1\n",
    "\t192.0.2.1",
    "192.0.2.1,192.0.2.2",
    "010.1.1.1",
    "192.0.2.01",
    "127.1",
    "0x7f.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "3221225985",
    "192.0.2.1e0",
    "192.0.2.1_",
    "192..2.1",
    "192.0.2.",
    ".192.0.2",
    "１９２.0.2.1",  # noqa: RUF001 (digits that are not ASCII)
    "192.0.2.١",  # noqa: RUF001 (digits that are not ASCII)
    "192。0。2。1",
    "fe80::1%eth0",
    "fe80::1%25",
    "2001:db8::7%",
    "::ffff:192.0.2.1%1",
    "[2001:db8::7]",
    "[2001:db8::7]:443",
    "2001:db8::7/64",
    "2001:db8::7::1",
    "2001:db8:::7",
    "2001:db8:0:0:0:0:0:0:7",
    "2001:db8:0:0:0:0:7",
    "2001:db8::00007",
    "2001:db8::g",
    ":",
    ":::",
    "::ffff:010.1.1.1",
    "::ffff:192.0.2",
    "::ffff:256.0.2.1",
    "localhost",
    "example.com",
    "None",
    "null",
    "unknown",
)


@pytest.mark.parametrize("text", NOT_IPS)
def test_what_is_not_exactly_one_address_is_refused_without_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="not") as caught:
        pack_ip(text)

    assert len(text) < 5 or text not in shown(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "00000000000000000000ffffc0000201"),
        ("::ffff:192.0.2.1", "00000000000000000000ffffc0000201"),
        ("::ffff:c000:201", "00000000000000000000ffffc0000201"),
        ("0:0:0:0:0:FFFF:192.0.2.1", "00000000000000000000ffffc0000201"),
        ("0.0.0.0", "00000000000000000000ffff00000000"),  # noqa: S104 (an address like any other)
        ("255.255.255.255", "00000000000000000000ffffffffffff"),
        ("::", "00000000000000000000000000000000"),
        ("::1", "00000000000000000000000000000001"),
        ("::192.0.2.1", "000000000000000000000000c0000201"),
        ("2001:db8::7", "20010db8000000000000000000000007"),
    ],
)
def test_an_address_is_16_bytes(text: str, expected: str) -> None:
    actual = pack_ip(text).hex()

    assert expected == actual


@pytest.mark.parametrize(
    "text",
    [
        "2001:db8::7",
        "2001:DB8::7",
        "2001:0db8::0007",
        "2001:db8:0:0:0:0:0:7",
        "2001:0DB8:0000:0000:0000:0000:0000:0007",
        "2001:db8::0:7",
        "2001:db8:0::0:7",
        "2001:db8::0.0.0.7",
    ],
)
def test_every_spelling_of_an_ipv6_address_is_read_back_in_one(text: str) -> None:
    actual = unpack_ip(pack_ip(text))

    assert actual == "2001:db8::7"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:DB8::ABCD", "2001:db8::abcd"),
        ("0:0:0:0:0:0:0:0", "::"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("1:0:0:0:0:0:0:0", "1::"),
        ("::ffff:199.172.111.135", "199.172.111.135"),
        ("199.172.111.135", "199.172.111.135"),
        ("127.0.0.1", "127.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),  # noqa: S104 (an address like any other)
        ("224.0.0.1", "224.0.0.1"),
        ("255.255.255.255", "255.255.255.255"),
        ("fe80::1", "fe80::1"),
        ("ff02::1", "ff02::1"),
    ],
)
def test_addresses_are_read_back_as_rfc_5952_writes_them(text: str, expected: str) -> None:
    actual = unpack_ip(pack_ip(text))

    assert expected == actual


@settings(max_examples=100, deadline=None)
@given(address=st.ip_addresses(v=4))
def test_an_ipv4_address_comes_back_and_its_mapped_form_is_the_same(address: IPv4Address) -> None:
    packed = pack_ip(str(address))

    assert unpack_ip(packed) == str(address)
    assert packed == pack_ip(f"::ffff:{address}")


@settings(max_examples=100, deadline=None)
@given(address=st.ip_addresses(v=6))
def test_an_ipv6_address_comes_back_and_its_long_form_is_the_same(address: IPv6Address) -> None:
    packed = pack_ip(str(address))

    assert packed == pack_ip(address.exploded.upper())
    assert pack_ip(unpack_ip(packed)) == packed


@settings(max_examples=100, deadline=None)
@given(packed=st.binary(min_size=16, max_size=16))
def test_any_16_bytes_are_those_of_their_text(packed: bytes) -> None:
    assert pack_ip(unpack_ip(packed)) == packed


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters()) | st.text("0123456789abcdef.:%/ x", max_size=20))
def test_any_text_is_an_address_or_a_refusal(text: str) -> None:
    try:
        packed = pack_ip(text)
    except ValueError:
        return

    assert len(packed) == 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", "31800000000000000000000000000000"),
        ("593-47-5928", "3539332d34372d353932388000000000"),
        ("0123456789abcde", "30313233343536373839616263646580"),
        (
            "0123456789abcdef",
            "3031323334353637383961626364656680000000000000000000000000000000",
        ),
        ("À", "c3808000000000000000000000000000"),
    ],
)
def test_a_device_id_is_padded_to_a_multiple_of_16_bytes(text: str, expected: str) -> None:
    actual = pad_text(text).hex()

    assert expected == actual


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=128))
@example(text="À")
@example(text="x" * 15 + "À")
@example(text="Ā\0\0")
@example(text="\0" * 16)
@example(text="")
def test_a_device_id_comes_back_from_its_padding(text: str) -> None:
    padded = pad_text(text)

    assert unpad_text(padded) == text
    assert len(padded) % 16 == 0
    assert len(text.encode()) < len(padded) <= len(text.encode()) + 16


@settings(max_examples=100, deadline=None)
@given(one=st.text(max_size=20), other=st.text(max_size=20))
def test_different_device_ids_differ_when_padded(one: str, other: str) -> None:
    assert (one == other) == (pad_text(one) == pad_text(other))


def test_a_device_id_is_taken_exactly_as_it_came() -> None:
    spellings = ["a", "A", " a", "a ", "a\0", "e\u0301", "\u00e9"]

    actual = {pad_text(text) for text in spellings}

    assert len(actual) == 7


@pytest.mark.parametrize(
    "padded",
    [b"", bytes(16), b"canary id no end", b"canary\x80not zeros", b"canary\x80" + bytes(8) + b"\1"],
    ids=["empty", "zeros", "no mark", "text behind", "not all zeros"],
)
def test_a_padding_that_is_not_ours_is_refused_without_its_text(padded: bytes) -> None:
    with pytest.raises(ValueError, match="padding") as caught:
        unpad_text(padded)

    assert "canary" not in shown(caught.value)


def test_padded_bytes_that_are_no_text_are_refused_without_them() -> None:
    """A UnicodeDecodeError keeps the bytes it failed on, and its repr shows them."""
    padded = b"canary\xff\x80" + bytes(8)

    with pytest.raises(ValueError) as caught:  # noqa: PT011 (any text, if it tells nothing)
        unpad_text(padded)

    assert "canary" not in shown(caught.value)


def test_a_device_id_that_utf8_cannot_hold_is_refused_without_it() -> None:
    """A UnicodeEncodeError keeps the text it failed on, and its repr shows it."""
    text = "canary\ud800"

    with pytest.raises(ValueError) as caught:  # noqa: PT011 (any text, if it tells nothing)
        pad_text(text)

    assert "canary" not in shown(caught.value)
