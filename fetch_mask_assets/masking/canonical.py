"""Canonical forms: the bytes that equal values share before they are encrypted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fetch_mask_assets.masking.addresses import pack_ip, unpack_ip

BLOCK = 16
MAX_TEXT_BYTES = 128
"""The longest text that is masked, in bytes of UTF-8."""

END_OF_TEXT = b"\x80"


@dataclass(frozen=True, slots=True)
class CanonicalForm:
    """A kind of value, and its canonical bytes.

    `name` is the kind in a sentence. `check` raises ValueError for a text that is no such value,
    without the text. `to_bytes` gives a multiple of 16 bytes, at least `min_bytes` and, where
    `is_fixed`, never more; `to_text` is its inverse. `example` is a value of no one.
    """

    name: str
    check: Callable[[str], object]
    to_bytes: Callable[[str], bytes]
    to_text: Callable[[bytes], str]
    example: str
    is_fixed: bool
    min_bytes: int = BLOCK


def check_text(text: str) -> None:
    """Checks that a text is not longer than `MAX_TEXT_BYTES`.

    Raises:
        ValueError: it is longer, or not Unicode; carries no value.
    """
    if len(_encoded(text)) > MAX_TEXT_BYTES:
        raise ValueError("the text is too long to be masked")


def pad_text(text: str) -> bytes:
    """A text in UTF-8, padded to a multiple of 16 bytes (ISO/IEC 7816-4).

    So the length of a token does not reveal that of a short text.

    Raises:
        ValueError: it is not Unicode; carries no value.
    """
    marked = _encoded(text) + END_OF_TEXT
    return marked.ljust(-(-len(marked) // BLOCK) * BLOCK, b"\0")


def unpad_text(padded: bytes) -> str:
    """The text that was padded.

    Raises:
        ValueError: the padding is not that of `pad_text`; carries no value.
    """
    text, mark, zeros = padded.rpartition(END_OF_TEXT)
    if not mark or zeros.strip(b"\0"):
        raise ValueError("the padding is not ISO/IEC 7816-4")
    try:
        return text.decode()
    except UnicodeDecodeError:
        # It would carry the bytes on.
        raise ValueError("the padded text is not UTF-8") from None


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # It would carry the text on.
        raise ValueError("the text is not Unicode") from None


IP_ADDRESS = CanonicalForm(
    name="an IP address",
    check=pack_ip,
    to_bytes=pack_ip,
    to_text=unpack_ip,
    example="192.0.2.0",  # of a network for documentation (RFC 5737)
    is_fixed=True,
)
"""An IPv4 or IPv6 address in any spelling."""

TEXT = CanonicalForm(
    name="a text",
    check=check_text,
    to_bytes=pad_text,
    to_text=unpad_text,
    example="none",
    is_fixed=False,
)
"""A text exactly as it came."""
