"""The profile of a message body: its field set, without the sender's text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fetch_mask_assets.masking.fields import FIELD_NAMES

NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not an object"

# Sender's text decides how many there are, and a list must stay short.
_MAX_COUNTED = 9


def body_profile(body: str) -> str:
    """The set of a body's keys: the contract's by name, the sender's own only as a number.

    A key that is not the contract's is text of the sender, and may itself be an IP.
    """
    try:
        value = _DECODER.decode(body)
    except (ValueError, RecursionError):
        return NOT_JSON
    return _profile(value.names) if isinstance(value, _Object) else NOT_AN_OBJECT


@dataclass(frozen=True, slots=True)
class _Object:
    names: tuple[str, ...]


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    return _Object(tuple(name for name, _ in pairs))


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=str, parse_float=str)


def _profile(names: tuple[str, ...]) -> str:
    distinct = set(names)
    known = ",".join(sorted(distinct & set(FIELD_NAMES))) or "no known field"
    unknown = _some(len(distinct - set(FIELD_NAMES)), "unknown")
    return known + unknown + _some(len(names) - len(distinct), "repeated")


def _some(count: int, what: str) -> str:
    if count == 0:
        return ""
    return f" +{count} {what}" if count <= _MAX_COUNTED else f" +{_MAX_COUNTED + 1} or more {what}"
