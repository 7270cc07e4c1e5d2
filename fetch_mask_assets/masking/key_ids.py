"""The id of the key that a token or a sealed body is under, as it stands in its first bytes.

Tink's prefix is one version byte and four bytes of key id.
Source: https://developers.google.com/tink/wire-format
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode

from fetch_mask_assets.masking.fields import MASKED_FIELDS

# Six whole bytes: the prefix and one more.
_HEAD_CHARACTERS = 8
_PREFIX_BYTES = 5
_HEAD = re.compile(r"A[Q-Za-f][A-Za-z0-9_-]{6}", re.ASCII)

KEY_HEAD_LENGTH = {
    field.name: len(field.token_prefix) + _HEAD_CHARACTERS for field in MASKED_FIELDS
}
"""How many of a token's first characters hold its key id, by the field's name."""


def token_key_id(name: str, head: str) -> int | None:
    """The key id of a token of a field, by its first characters; None if it cannot be one."""
    encoded = head.removeprefix(f"{name}:")
    if encoded == head or not _HEAD.match(encoded):
        return None
    return int.from_bytes(urlsafe_b64decode(encoded[:_HEAD_CHARACTERS])[1:_PREFIX_BYTES], "big")


def sealed_key_id(body: bytes) -> int | None:
    """The key id of a sealed body; None if it cannot be one."""
    if len(body) <= _PREFIX_BYTES or body[0] != 1:
        return None
    return int.from_bytes(body[1:_PREFIX_BYTES], "big")
