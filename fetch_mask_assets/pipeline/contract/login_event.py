"""The login event and its contract."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from fetch_mask_assets.masking.addresses import addresses_in, packed
from fetch_mask_assets.masking.canonical import MAX_DEVICE_ID_BYTES, pack_ip
from fetch_mask_assets.pipeline.contract.message_body import parse_object
from fetch_mask_assets.pipeline.contract.rejection import Reason, RejectedError, Rejection

# In characters, as the columns of user_logins count them; app_version is kept in the ledger.
MAX_LENGTH: Mapping[str, int] = {
    "user_id": 128,
    "app_version": 256,
    "device_type": 32,
    "ip": 45,
    "locale": 32,
    "device_id": 128,
}
FIELDS = tuple(MAX_LENGTH)
CLEAR_FIELDS = tuple(name for name in FIELDS if name not in {"ip", "device_id"})

# Shorter values occur inside others by chance.
MIN_REVEALING_LENGTH = 6

_DOTS_OF_IPV4 = 3

# C0, DEL and C1, without tab, line feed and carriage return, which text may hold.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class LoginEvent(NamedTuple):
    """One login that keeps the contract, its values as they came."""

    user_id: str
    app_version: str
    device_type: str
    ip: str
    locale: str | None
    device_id: str
    extra_fields: int


def decode_login_event(body: str) -> LoginEvent | Rejection:
    """The login event that a message body holds, or the first rule that the body breaks."""
    try:
        return _login_event(parse_object(body))
    except RejectedError as rejected:
        return rejected.rejection


def _login_event(members: Mapping[str, Any]) -> LoginEvent:
    event = LoginEvent(
        user_id=_required(members, "user_id"),
        app_version=_required(members, "app_version"),
        device_type=_required(members, "device_type"),
        ip=_ip(_required(members, "ip")),
        locale=_optional(members, "locale"),
        device_id=_device_id(_required(members, "device_id")),
        extra_fields=len(members.keys() - MAX_LENGTH.keys()),
    )
    _refuse_repeats(members)
    return event


def _required(members: Mapping[str, Any], name: str) -> str:
    if name not in members:
        raise RejectedError(Reason.MISSING, name)
    if members[name] is None:
        raise RejectedError(Reason.NULL, name)
    text = _text(members[name], name)
    if not text.strip():
        raise RejectedError(Reason.BLANK, name)
    return text


def _optional(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    return None if value is None else _text(value, name)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RejectedError(Reason.WRONG_TYPE, name)
    if len(value) > MAX_LENGTH[name]:
        raise RejectedError(Reason.TOO_LONG, name)
    if _CONTROL.search(value):
        raise RejectedError(Reason.CONTROL_CHARACTER, name)
    if _SURROGATE.search(value):
        raise RejectedError(Reason.NOT_UNICODE, name)
    return value


def _ip(text: str) -> str:
    try:
        pack_ip(text)
    except ValueError:
        raise RejectedError(Reason.NOT_AN_IP, "ip") from None
    return text


def _device_id(text: str) -> str:
    if len(text.encode()) > MAX_DEVICE_ID_BYTES:
        raise RejectedError(Reason.TOO_LONG, "device_id")
    return text


def _refuse_repeats(members: Mapping[str, Any]) -> None:
    # A clear field that repeats the IP or the device id would carry it into the table unmasked.
    for clear in CLEAR_FIELDS:
        for masked in ("ip", "device_id"):
            if repeats(members.get(clear), members[masked]):
                raise RejectedError(Reason.REPEATS_MASKED_VALUE, clear)


def repeats(clear: str | None, masked: str) -> bool:
    """Whether a clear text is the masked value, or holds it where that cannot be chance.

    Case, spaces around it and compatible characters (NFKC) make no difference, and an address
    is itself in every spelling.
    """
    if clear is None:
        return False
    return (
        _holds(clear, masked)
        or _holds(_plain(clear), _plain(masked))
        or _holds_address(clear, masked)
    )


def _holds(clear: str, masked: str) -> bool:
    return clear == masked or (len(masked) >= MIN_REVEALING_LENGTH and masked in clear)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _holds_address(clear: str, masked: str) -> bool:
    # Most texts hold no address at first sight, and looking for one is dear.
    if ":" not in clear and clear.count(".") < _DOTS_OF_IPV4:
        return False
    return not addresses_in(clear).isdisjoint(packed(masked))
