"""Changes to a keyset: a new primary key, a key disabled, a key enabled again.

A keyset here is Tink's JSON in the clear, which is secret; the ids and states of its keys are not.
Source: https://developers.google.com/tink/managing-key-rotation
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.keyset import new_keyset, parse_keyset

_ENABLED = "ENABLED"
_DISABLED = "DISABLED"


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key of a keyset, without its material."""

    key_id: int
    is_primary: bool
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class Rotation:
    """A keyset with a new primary key, whose id is `key_id`."""

    keyset: str = field(repr=False)
    key_id: int


def key_states(name: str, keyset: str) -> tuple[KeyState, ...]:
    """The keys of a keyset, in its order: the oldest first.

    Raises:
        KeysetError: the text is not a keyset of this name.
    """
    members = parse_keyset(name, keyset)
    return tuple(
        KeyState(
            key_id=key["keyId"],
            is_primary=key["keyId"] == members["primaryKeyId"],
            is_enabled=key["status"] == _ENABLED,
        )
        for key in members["key"]
    )


def rotated(name: str, keyset: str, reserved: Collection[int] = ()) -> Rotation:
    """The keyset with a new primary key beside the old ones, which stay as they are.

    `reserved` are ids that the new key must not have: those of keys that left the keyset.

    Raises:
        KeysetError: the text is not a keyset of this name.
    """
    members = parse_keyset(name, keyset)
    (key,) = _new_key(name, {*reserved, *(each["keyId"] for each in members["key"])})
    changed = {"primaryKeyId": key["keyId"], "key": [*members["key"], key]}
    return Rotation(_checked(name, changed), key["keyId"])


def disabled(name: str, keyset: str, key_id: int) -> str:
    """The keyset with a key that is kept and no longer used.

    Raises:
        KeysetError: the key is primary or not in the keyset.
    """
    members = parse_keyset(name, keyset)
    if key_id == members["primaryKeyId"]:
        raise KeysetError(
            f"key {key_id} is the primary key of the keyset of {name}: rotate first, and re-mask."
        )
    return _with_status(name, members, key_id, _DISABLED)


def enabled(name: str, keyset: str, key_id: int) -> str:
    """The keyset with a disabled key that opens tokens again.

    Raises:
        KeysetError: the key is not in the keyset.
    """
    return _with_status(name, parse_keyset(name, keyset), key_id, _ENABLED)


def _new_key(name: str, reserved: Collection[int]) -> list[dict[str, Any]]:
    while True:
        members = parse_keyset(name, new_keyset(name))
        if members["primaryKeyId"] not in reserved:
            keys: list[dict[str, Any]] = members["key"]
            return keys


def _with_status(name: str, members: dict[str, Any], key_id: int, status: str) -> str:
    if key_id not in {key["keyId"] for key in members["key"]}:
        raise KeysetError(f"key {key_id} is not in the keyset of {name}.")
    keys = [key | ({"status": status} if key["keyId"] == key_id else {}) for key in members["key"]]
    return _checked(name, members | {"key": keys})


def _checked(name: str, members: dict[str, Any]) -> str:
    """The text of a keyset, once it has been seen to open."""
    text = json.dumps(members)
    parse_keyset(name, text)
    return text
