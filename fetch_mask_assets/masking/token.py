"""A token as text: the field's name, a colon, and Tink's ciphertext in base64url.

Tink's ciphertext is its output prefix (one version byte, four bytes of key id), the 16-byte
synthetic IV of RFC 5297 and the encrypted canonical value.
Source: https://developers.google.com/tink/wire-format
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.masking.canonical import BLOCK
from fetch_mask_assets.masking.fields import MAX_TOKEN_LENGTH, MaskedField

TINK_VERSION = 1
PREFIX_BYTES = 5
_SIV_BYTES = 16
MIN_CIPHERTEXT_BYTES = PREFIX_BYTES + _SIV_BYTES + BLOCK
"""A longer ciphertext has more blocks of 16 bytes."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

# Tink's prefix is 40 bits: six characters of base64 and two thirds of a seventh, whose last two
# bits are the first of the synthetic IV.
_HEAD_CHARACTERS = 7
_HEAD = re.compile(r"A[Q-Za-f][A-Za-z0-9_-]{5}", re.ASCII)
_LAST_BITS = (0x00, 0x40, 0x80, 0xC0)


@dataclass(frozen=True, slots=True)
class Token:
    """A well-formed token, taken apart."""

    key_id: int
    ciphertext: bytes


def format_token(field: MaskedField, ciphertext: bytes) -> str:
    """The text of a token."""
    return field.token_prefix + urlsafe_b64encode(ciphertext).rstrip(b"=").decode("ascii")


def parse_token(field: MaskedField, text: str) -> Token:
    """Takes a token apart; does not check that it is genuine.

    Raises:
        TokenError: the text is not one that `format_token` makes for this field.
    """
    ciphertext = _decode(field, text)
    over = len(ciphertext) - MIN_CIPHERTEXT_BYTES
    if over < 0 or over % BLOCK or ciphertext[0] != TINK_VERSION:
        raise TokenError(f"not a token of {field.name}: wrong length or version.")
    return Token(_key_id(ciphertext), ciphertext)


def key_prefix(key_id: int) -> bytes:
    """The first bytes of every ciphertext under a key: Tink's output prefix."""
    return bytes([TINK_VERSION]) + key_id.to_bytes(PREFIX_BYTES - 1, "big")


def key_head_length(field: MaskedField) -> int:
    """The number of a token's first characters that its key id is read from."""
    return len(field.token_prefix) + _HEAD_CHARACTERS


def key_heads(field: MaskedField, key_id: int) -> tuple[str, ...]:
    """The first characters of the field's tokens under a key, in the order of their bytes."""
    prefix = key_prefix(key_id)
    heads = (format_token(field, prefix + bytes([bits])) for bits in _LAST_BITS)
    return tuple(sorted(head[: key_head_length(field)] for head in heads))


def token_key_id(field: MaskedField, text: str) -> int | None:
    """The key id of a token, read from its first characters; None if it is no token."""
    encoded = text.removeprefix(field.token_prefix)
    if encoded == text or not _HEAD.match(encoded):
        return None
    return _key_id(urlsafe_b64decode(encoded[:_HEAD_CHARACTERS] + "A"))


def sealed_key_id(body: bytes) -> int | None:
    """The key id of a sealed body; None if it is not a sealed body."""
    if len(body) <= PREFIX_BYTES or body[0] != TINK_VERSION:
        return None
    return _key_id(body)


def _key_id(ciphertext: bytes) -> int:
    return int.from_bytes(ciphertext[1:PREFIX_BYTES], "big")


def _decode(field: MaskedField, text: str) -> bytes:
    encoded = text.removeprefix(field.token_prefix)
    if encoded == text or len(text) > MAX_TOKEN_LENGTH:
        raise TokenError(f"not a token of {field.name}: it does not start with its name.")
    if not _BASE64URL.fullmatch(encoded) or len(encoded) % 4 == 1:
        raise TokenError(f"not a token of {field.name}: it is not base64url.")
    ciphertext = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    if format_token(field, ciphertext) != text:
        raise TokenError(f"not a token of {field.name}: another spelling of one.")
    return ciphertext
