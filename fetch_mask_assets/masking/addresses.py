"""IP addresses: their canonical bytes, and the addresses that stand in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address

V4_MAPPED = bytes(10) + b"\xff\xff"

_QUAD = re.compile(r"(?<!\d)\d{1,3}(?:\.\d{1,3}){3}(?!\d)", re.ASCII)
_RUN = re.compile(r"[0-9A-Fa-f:.]+")
_MAX_RUN_LENGTH = 64


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
    return address.packed if address.version == 6 else V4_MAPPED + address.packed  # noqa: PLR2004 (IPv6)


def unpack_ip(packed: bytes) -> str:
    """16 bytes as text: dotted IPv4, or IPv6 as RFC 5952 writes it."""
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def addresses_in(text: str) -> set[bytes]:
    """The addresses that stand in a text, in any spelling, by their canonical bytes."""
    runs = [run for run in _RUN.findall(text) if ":" in run and len(run) <= _MAX_RUN_LENGTH]
    candidates = {*_QUAD.findall(text), *(part for run in runs for part in _parts(run))}
    return set().union(*map(packed, candidates))


def packed(text: str) -> set[bytes]:
    """The canonical bytes of a text that is an address; empty if it is none."""
    try:
        return {pack_ip(text)}
    except ValueError:
        return set()


def _parts(run: str) -> Iterator[str]:
    """The parts of a run of hexadecimal groups that may be an address, without their neighbours."""
    groups = run.strip(".").split(":")
    for start in range(min(3, len(groups))):
        for end in range(max(len(groups) - 2, start + 1), len(groups) + 1):
            yield ":".join(groups[start:end])
