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
from fetch_mask_assets.masking.fields import MaskedField

MAX_TOKEN_LENGTH = 256

_TINK_VERSION = 1
_PREFIX_BYTES = 5
_SIV_BYTES = 16
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """A well-formed token, taken apart."""

    key_id: int
    ciphertext: bytes

    @property
    def sealed(self) -> bytes:
        """The synthetic IV and the encrypted value, without Tink's prefix."""
        return self.ciphertext[_PREFIX_BYTES:]


def format_token(field: MaskedField, ciphertext: bytes) -> str:
    """The text of a token."""
    return field.token_prefix + urlsafe_b64encode(ciphertext).rstrip(b"=").decode("ascii")


def parse_token(field: MaskedField, text: str) -> Token:
    """Takes a token apart; says nothing of whether it is genuine.

    Raises:
        TokenError: the text is not one that `format_token` makes for this field.
    """
    ciphertext = _decode(field, text)
    value_bytes = len(ciphertext) - _PREFIX_BYTES - _SIV_BYTES
    if value_bytes < BLOCK or value_bytes % BLOCK or ciphertext[0] != _TINK_VERSION:
        raise TokenError(f"not a token of {field.name}: it has not the length or the version.")
    return Token(int.from_bytes(ciphertext[1:_PREFIX_BYTES], "big"), ciphertext)


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
