"""Raw values that tests send, and the forms in which one can lie somewhere and be read."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from ipaddress import IPv4Address, ip_address
from urllib.parse import quote


@cache
def forms(canary: str) -> tuple[bytes, ...]:
    """The ways in which a value can lie in a file and still be read without a key.

    As text (UTF-8, UTF-16, as JSON escapes it), as the packed bytes of an IPv6 address, each of
    these reversed, in hexadecimal of either case and in base64 of either alphabet at each of three
    alignments; and URL-encoded. An IPv4 address has only four bytes, which occur by chance: packed
    it is looked for in its IPv4-mapped form of sixteen, as eight hexadecimal digits and as the
    decimal number. What ends in a dot is the first three parts
    of IPv4 addresses, and stands for all of them.
    """
    plain = _plain(canary)
    hexadecimal = [text.hex() for text in plain]
    found = (
        *_numeric(canary),
        *plain,
        *(text[::-1] for text in plain),
        *(text.encode() for text in hexadecimal),
        *(text.upper().encode() for text in hexadecimal),
        *(encoded for text in plain for encoded in _base64(text)),
        *_url_encoded(canary),
    )
    return tuple(dict.fromkeys(found))


def raw_values(text: bytes, canaries: Iterable[str]) -> int:
    """How often any of the values lies in a text, in any of its forms."""
    return sum(text.count(form) for canary in canaries for form in forms(canary))


def _plain(canary: str) -> list[bytes]:
    texts = [canary.encode(), canary.encode("utf-16-le"), json.dumps(canary)[1:-1].encode()]
    if canary.endswith("."):
        return [*texts, ip_address(f"::ffff:{canary}0").packed[:-1]]
    try:
        address = ip_address(canary)
    except ValueError:
        return texts
    if address.version == 6:
        return [*texts, address.exploded.encode(), address.packed]
    return [*texts, ip_address(f"::ffff:{canary}").packed]


def _numeric(canary: str) -> list[bytes]:
    """A whole IPv4 address as hexadecimal digits of either case, and as a number."""
    try:
        address = IPv4Address(canary)
    except ValueError:
        return []
    digits = address.packed.hex()
    return [digits.encode(), digits.upper().encode(), str(int(address)).encode()]


def _base64(value: bytes) -> list[bytes]:
    """What base64 makes of a value, wherever in a text it starts; only the certain part."""
    encoded = []
    for offset in range(3):
        text = b64encode(bytes(offset) + value)
        certain = text[-(-offset * 4 // 3) : len(value + bytes(offset)) // 3 * 4]
        encoded += [certain, certain.translate(bytes.maketrans(b"+/", b"-_"))]
    return encoded


def _url_encoded(canary: str) -> list[bytes]:
    full = "".join(f"%{byte:02x}" for byte in canary.encode())
    return [quote(canary, safe="").encode(), full.encode(), full.upper().encode()]
