"""The one form that equal values share before they are masked, and the way back."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

BLOCK = 16
MAX_DEVICE_ID_BYTES = 128

_V4_MAPPED = bytes(10) + b"\xff\xff"
_END_OF_TEXT = b"\x80"


def pack_ip(text: str) -> bytes:
    """An IP address as 16 bytes; IPv4 in its IPv4-mapped form (RFC 4291, 2.5.5.2).

    So an IPv4 address and its IPv4-mapped IPv6 spelling are one value.

    Raises:
        ValueError: not exactly one IPv4 or IPv6 address; carries no value.
    """
    if "%" in text:
        raise ValueError("a zone id is not part of an address")
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("not an IP address") from None
    return address.packed if address.version == 6 else _V4_MAPPED + address.packed  # noqa: PLR2004 (IPv6)


def unpack_ip(packed: bytes) -> str:
    """16 bytes as text: dotted IPv4, or IPv6 as RFC 5952 writes it."""
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def pad_device_id(text: str) -> bytes:
    """A device id in UTF-8, padded to a multiple of 16 bytes (ISO/IEC 7816-4).

    So a token's length tells nothing of the short ones.
    """
    try:
        marked = text.encode() + _END_OF_TEXT
    except UnicodeEncodeError:
        # It would carry the text on.
        raise ValueError("the device id is not Unicode text") from None
    return marked.ljust(-(-len(marked) // BLOCK) * BLOCK, b"\0")


def unpad_device_id(padded: bytes) -> str:
    """The device id that was padded.

    Raises:
        ValueError: the padding is not ours; carries no value.
    """
    text, mark, zeros = padded.rpartition(_END_OF_TEXT)
    if not mark or zeros.strip(b"\0"):
        raise ValueError("the padding is not ISO/IEC 7816-4")
    try:
        return text.decode()
    except UnicodeDecodeError:
        # It would carry the bytes on.
        raise ValueError("the padded device id is not UTF-8") from None
