"""The fields that are masked, as data: adding one here masks it everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fetch_mask_assets.masking.canonical import (
    pack_ip,
    pad_device_id,
    unpack_ip,
    unpad_device_id,
)


@dataclass(frozen=True, slots=True)
class MaskedField:
    """A field of the login event that leaves the queue only as a token.

    `canonical` gives the bytes that are encrypted, a multiple of 16; `original` is its inverse.
    """

    name: str
    canonical: Callable[[str], bytes]
    original: Callable[[bytes], str]

    @property
    def column(self) -> str:
        """The column of `user_logins` that holds the token."""
        return f"masked_{self.name}"

    @property
    def token_prefix(self) -> str:
        """What every token of this field starts with."""
        return f"{self.name}:"

    @property
    def associated_data(self) -> bytes:
        """Bound into each token, so that none can pass for another field's (RFC 5297, 2.6)."""
        return f"user_logins/{self.name}".encode()


IP = MaskedField("ip", pack_ip, unpack_ip)
DEVICE_ID = MaskedField("device_id", pad_device_id, unpad_device_id)
MASKED_FIELDS = (IP, DEVICE_ID)
