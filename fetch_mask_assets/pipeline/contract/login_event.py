"""The login event and its contract."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fetch_mask_assets.masking.addresses import addresses_in, packed
from fetch_mask_assets.masking.canonical import IP_ADDRESS, TEXT
from fetch_mask_assets.masking.fields import (
    CLEAR_FIELDS,
    FIELD_NAMES,
    FIELDS,
    MASKED_FIELDS,
    ClearField,
    MaskedField,
)
from fetch_mask_assets.pipeline.contract.message_body import parse_object
from fetch_mask_assets.pipeline.contract.rejection import Reason, RejectedError, Rejection

# Shorter values occur inside others by chance.
MIN_REVEALING_LENGTH = 6

_DOTS_OF_IPV4 = 3

# C0, DEL and C1, without tab, line feed and carriage return, which text may hold.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

_REASONS = {IP_ADDRESS: Reason.NOT_AN_IP, TEXT: Reason.TOO_LONG}
"""The reason for rejecting a value that its canonical form does not take."""


class LoginEvent(NamedTuple):
    """A login that keeps the contract: its values by field as they came, None where there is none.

    `extra_fields` is the number of members that the contract does not name.
    """

    values: Mapping[str, str | None]
    extra_fields: int

    def __repr__(self) -> str:
        """Without the values."""
        return f"LoginEvent(..., extra_fields={self.extra_fields})"


def decode_login_event(body: str) -> LoginEvent | Rejection:
    """The login event that a message body holds, or the first rule that the body breaks."""
    try:
        return _login_event(parse_object(body))
    except RejectedError as rejected:
        return rejected.rejection


def _login_event(members: Mapping[str, Any]) -> LoginEvent:
    values = {name: read(members) for name, read in _READERS}
    if name := repeating_field(values):
        raise RejectedError(Reason.REPEATS_MASKED_VALUE, name)
    return LoginEvent(values, len(members.keys() - _NAMES))


_Reader = Callable[[Mapping[str, Any]], str | None]


def _reader(field: ClearField | MaskedField) -> _Reader:
    """A function that takes a field's value from the members of an object.

    It raises RejectedError where the value breaks the contract.
    """
    read = _required(field) if field.is_required else _optional(field)
    return _checked(field, read) if isinstance(field, MaskedField) else read


def _required(field: ClearField | MaskedField) -> _Reader:
    name, max_length = field.name, field.max_length

    def read(members: Mapping[str, Any]) -> str:
        if name not in members:
            raise RejectedError(Reason.MISSING, name)
        if members[name] is None:
            raise RejectedError(Reason.NULL, name)
        text = _text(members[name], name, max_length)
        if not text.strip():
            raise RejectedError(Reason.BLANK, name)
        return text

    return read


def _optional(field: ClearField | MaskedField) -> _Reader:
    name, max_length = field.name, field.max_length
    allows_blank = isinstance(field, ClearField)

    def read(members: Mapping[str, Any]) -> str | None:
        value = members.get(name)
        if value is None:
            return None
        text = _text(value, name, max_length)
        if not (allows_blank or text.strip()):
            raise RejectedError(Reason.BLANK, name)
        return text

    return read


def _checked(field: MaskedField, read: _Reader) -> _Reader:
    check, rejection = field.form.check, (_REASONS[field.form], field.name)

    def read_checked(members: Mapping[str, Any]) -> str | None:
        text = read(members)
        if text is not None:
            try:
                check(text)
            except ValueError:
                raise RejectedError(*rejection) from None
        return text

    return read_checked


def _text(value: object, name: str, max_length: int) -> str:
    if not isinstance(value, str):
        raise RejectedError(Reason.WRONG_TYPE, name)
    if len(value) > max_length:
        raise RejectedError(Reason.TOO_LONG, name)
    if _CONTROL.search(value):
        raise RejectedError(Reason.CONTROL_CHARACTER, name)
    if _SURROGATE.search(value):
        raise RejectedError(Reason.NOT_UNICODE, name)
    return value


_READERS = tuple((field.name, _reader(field)) for field in FIELDS)
_NAMES = frozenset(FIELD_NAMES)
_CLEAR_NAMES = tuple(field.name for field in CLEAR_FIELDS)
_MASKED_NAMES = tuple(field.name for field in MASKED_FIELDS)


def repeating_field(values: Mapping[str, str | None]) -> str | None:
    """The first clear field that repeats a masked value; None if none does.

    It would carry the value into the table unmasked.
    """
    masked = [(text, _plain(text)) for name in _MASKED_NAMES if (text := values[name]) is not None]
    for name in _CLEAR_NAMES:
        if (clear := values[name]) is not None:
            plain_clear = _plain(clear)
            for text, plain in masked:
                if _repeats(clear, plain_clear, text, plain):
                    return name
    return None


def repeats(clear: str | None, masked: str) -> bool:
    """Return whether a clear text is the masked value, or holds it where that cannot be chance.

    Case, spaces around it and compatible characters (NFKC) make no difference, nor does the
    spelling of an address.
    """
    return clear is not None and _repeats(clear, _plain(clear), masked, _plain(masked))


def _repeats(clear: str, plain_clear: str, masked: str, plain_masked: str) -> bool:
    return (
        _holds(clear, masked) or _holds(plain_clear, plain_masked) or _holds_address(clear, masked)
    )


def _holds(clear: str, masked: str) -> bool:
    return clear == masked or (len(masked) >= MIN_REVEALING_LENGTH and masked in clear)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _holds_address(clear: str, masked: str) -> bool:
    # Most texts hold no address at first sight, and looking for one is expensive.
    if ":" not in clear and clear.count(".") < _DOTS_OF_IPV4:
        return False
    return not addresses_in(clear).isdisjoint(packed(masked))
