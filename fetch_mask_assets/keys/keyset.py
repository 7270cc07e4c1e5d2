"""Keysets in Tink's JSON, and the keyring that is opened from them.

Source: https://developers.google.com/tink/wire-format
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cache
from typing import Any, TypeVar

import tink
from tink import aead, daead, secret_key_access
from tink import json_proto_keyset_format as json_format
from tink.proto.aes_siv_pb2 import AesSivKey  # type: ignore[attr-defined]  # made on import

from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.masker import FieldMasker, Sealer
from fetch_mask_assets.keys.siv_columns import SivColumns, siv_columns
from fetch_mask_assets.masking.fields import MASKED_FIELDS, MaskedField, masked_field

QUARANTINE = "quarantine"
KEYSET_NAMES = (*(field.name for field in MASKED_FIELDS), QUARANTINE)

_SIV_TYPE = "type.googleapis.com/google.crypto.tink.AesSivKey"
_GCM_TYPE = "type.googleapis.com/google.crypto.tink.AesGcmKey"
CHECK_VALUE_BYTES = 16

_P = TypeVar("_P")
_CHECK_TEXT = b"login_ingest/key-check"


@dataclass(frozen=True, slots=True)
class Keyring:
    """All keysets that a run needs: a masker for each masked field, and the sealer."""

    maskers: tuple[FieldMasker, ...]
    sealer: Sealer

    def masker(self, name: str) -> FieldMasker:
        """The masker of a field.

        Raises:
            KeyError: no masked field has this name.
        """
        return {masker.field.name: masker for masker in self.maskers}[name]

    @property
    def check_values(self) -> dict[str, Mapping[int, bytes]]:
        """The check values of each keyset's enabled keys, by the keyset's name and the key's id."""
        fields = {masker.field.name: masker.check_values for masker in self.maskers}
        return fields | {QUARANTINE: self.sealer.check_values}

    @property
    def primary_key_ids(self) -> dict[str, int]:
        """The id of each keyset's primary key, by the keyset's name."""
        fields = {masker.field.name: masker.primary_key_id for masker in self.maskers}
        return fields | {QUARANTINE: self.sealer.primary_key_id}


def new_keyset(name: str) -> str:
    """A new keyset with one key, as Tink's JSON. Secret: only ever for a private file."""
    _register()
    template = (
        aead.aead_key_templates.AES256_GCM
        if name == QUARANTINE
        else daead.deterministic_aead_key_templates.AES256_SIV
    )
    handle = tink.new_keyset_handle(template)
    return json_format.serialize(handle, secret_key_access.TOKEN)


def open_keyring(keysets: Mapping[str, str]) -> Keyring:
    """The keyring of keysets given as Tink's JSON, by name.

    Raises:
        KeysetError: one is missing, is not a keyset, or is for another purpose.
    """
    opened = {name: _open(name, keysets.get(name)) for name in KEYSET_NAMES}
    return Keyring(
        maskers=tuple(_masker(field, opened[field.name]) for field in MASKED_FIELDS),
        sealer=_sealer(opened[QUARANTINE]),
    )


def parse_keyset(name: str, text: str) -> dict[str, Any]:
    """The members of a keyset in Tink's JSON. Secret: the keys are among them.

    Raises:
        KeysetError: it is not a keyset, is for another purpose, or its primary key is not usable.
    """
    keys = _open(name, text)
    _ = _sealer(keys) if name == QUARANTINE else _masker(masked_field(name), keys)
    return _members(keys.handle)


@dataclass(frozen=True, slots=True)
class _Keys:
    """A keyset opened: Tink's handle, and the ids and check values of its keys."""

    name: str
    handle: tink.KeysetHandle
    primary_key_id: int
    check_values: Mapping[int, bytes] = dataclass_field(repr=False)

    def primitive(self, kind: type[_P]) -> _P:
        """Tink's primitive of a kind, over all keys of the keyset.

        Raises:
            KeysetError: Tink refuses a key's material.
        """
        try:
            return self.handle.primitive(kind)
        except tink.TinkError:
            raise KeysetError(f"the keyset of {self.name} holds a key that Tink refuses.") from None


@cache
def _register() -> None:
    daead.register()  # type: ignore[no-untyped-call]  # tink leaves out "-> None"
    aead.register()


def _open(name: str, text: str | None) -> _Keys:
    if text is None:
        raise KeysetError(f"the keyset of {name} is missing.")
    _register()
    try:
        handle = json_format.parse(text, secret_key_access.TOKEN)
    except (tink.TinkError, ValueError):
        raise KeysetError(f"the keyset of {name} is not a Tink keyset in JSON.") from None
    keyset = _members(handle)
    if "primaryKeyId" not in keyset:
        raise KeysetError(f"the keyset of {name} names no primary key.")
    for key in keyset["key"]:
        _refuse_other_kinds(name, key)
    return _Keys(name, handle, keyset["primaryKeyId"], _check_values(keyset["key"]))


def _members(handle: tink.KeysetHandle) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(json_format.serialize(handle, secret_key_access.TOKEN))
    return members


def _refuse_other_kinds(name: str, key: Mapping[str, Any]) -> None:
    # Proto3's JSON leaves out what is empty or zero.
    kind = (key["keyData"].get("typeUrl"), key["outputPrefixType"])
    expected = _GCM_TYPE if name == QUARANTINE else _SIV_TYPE
    if kind != (expected, "TINK") or "keyId" not in key:
        raise KeysetError(f"the keyset of {name} holds key {key.get('keyId', 0)}, of another kind.")


def _masker(field: MaskedField, keys: _Keys) -> FieldMasker:
    return FieldMasker(
        field=field,
        primary_key_id=keys.primary_key_id,
        check_values=keys.check_values,
        _primitive=keys.primitive(daead.DeterministicAead),  # type: ignore[type-abstract]  # Tink's own idiom
        _under={key_id: _primitive_under(keys, key_id) for key_id in keys.check_values},
        _retired={key_id: _primitive_under(keys, key_id) for key_id in _disabled(keys)},
        _columns=_columns(field, keys),
    )


def _columns(field: MaskedField, keys: _Keys) -> dict[int, SivColumns]:
    """The column ciphers of the enabled keys, by key id."""
    return {
        key["keyId"]: siv_columns(_siv_key(key["keyData"]["value"]), field.associated_data)
        for key in _members(keys.handle)["key"]
        if key["status"] == "ENABLED"
    }


def _siv_key(value: str) -> bytes:
    """The 64 bytes of a key, from the value that a keyset has for it."""
    return bytes(AesSivKey.FromString(b64decode(value)).key_value)


def _disabled(keys: _Keys) -> list[int]:
    members = _members(keys.handle)["key"]
    return [key["keyId"] for key in members if key["status"] == "DISABLED"]


def _primitive_under(keys: _Keys, key_id: int) -> daead.DeterministicAead:
    """The primitive of one key of the keyset: Tink encrypts under none but an enabled primary."""
    alone = [key for key in _members(keys.handle)["key"] if key["keyId"] == key_id]
    text = json.dumps(
        {"primaryKeyId": key_id, "key": [key | {"status": "ENABLED"} for key in alone]}
    )
    handle = json_format.parse(text, secret_key_access.TOKEN)
    return replace(keys, handle=handle).primitive(daead.DeterministicAead)  # type: ignore[type-abstract]  # Tink's own idiom


def _sealer(keys: _Keys) -> Sealer:
    return Sealer(
        primary_key_id=keys.primary_key_id,
        check_values=keys.check_values,
        _primitive=keys.primitive(aead.Aead),  # type: ignore[type-abstract]  # Tink's own idiom
    )


def _check_values(keys: Iterable[Mapping[str, Any]]) -> dict[int, bytes]:
    return {
        key["keyId"]: _check_value(b64decode(key["keyData"].get("value", "")))
        for key in keys
        if key["status"] == "ENABLED"
    }


def _check_value(key_material: bytes) -> bytes:
    """Sixteen bytes that identify a key and do not reveal it (RFC 2104)."""
    return hmac.digest(key_material, _CHECK_TEXT, "sha256")[:CHECK_VALUE_BYTES]
