"""What may be said of a quarantined message without saying any of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fetch_mask_assets.masking.fields import FIELD_NAMES

NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not an object"
UNREADABLE = "cannot be opened"

# Sender's text decides how many there are, and a list must stay short.
_MAX_COUNTED = 9


@dataclass(frozen=True, slots=True)
class QuarantinedProfile:
    """Of one quarantined message: why it is there, the shape of its body, since when."""

    reason: str
    field: str | None
    shape: str
    quarantined_at: datetime


@dataclass(frozen=True, slots=True)
class ProfileCount:
    """How many messages have a reason, a field and a shape in common, and since when."""

    reason: str
    field: str | None
    shape: str
    messages: int
    since: datetime
    last_seen: datetime


def body_profile(body: str) -> str:
    """The set of a body's keys: the contract's by name, the sender's own only as a number.

    A key that is not the contract's is text of the sender, and may itself be an IP.
    """
    try:
        value = _DECODER.decode(body)
    except (ValueError, RecursionError):
        return NOT_JSON
    return _shape(value.names) if isinstance(value, _Object) else NOT_AN_OBJECT


def count_profiles(lines: Iterable[QuarantinedProfile]) -> tuple[ProfileCount, ...]:
    """Messages counted by reason, field and shape, most first; in memory for the kinds only."""
    counts: dict[tuple[str, str | None, str], ProfileCount] = {}
    for line in lines:
        kind, at = (line.reason, line.field, line.shape), line.quarantined_at
        known = counts.get(kind, ProfileCount(*kind, messages=0, since=at, last_seen=at))
        counts[kind] = replace(
            known,
            messages=known.messages + 1,
            since=min(known.since, at),
            last_seen=max(known.last_seen, at),
        )
    return tuple(sorted(counts.values(), key=_most_first))


def printable(text: str) -> str:
    """The text for a terminal: what would command it, or is no character, shows as an escape."""
    return "".join(
        character if character.isprintable() else _escaped(character) for character in text
    )


@dataclass(frozen=True, slots=True)
class _Object:
    names: tuple[str, ...]


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    return _Object(tuple(name for name, _ in pairs))


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=str, parse_float=str)


def _shape(names: tuple[str, ...]) -> str:
    distinct = set(names)
    known = ",".join(sorted(distinct & set(FIELD_NAMES))) or "no known field"
    unknown = _some(len(distinct - set(FIELD_NAMES)), "unknown")
    return known + unknown + _some(len(names) - len(distinct), "repeated")


def _some(count: int, what: str) -> str:
    if count == 0:
        return ""
    return f" +{count} {what}" if count <= _MAX_COUNTED else f" +{_MAX_COUNTED + 1} or more {what}"


def _most_first(count: ProfileCount) -> tuple[int, str, str, str]:
    return (-count.messages, count.reason, count.field or "", count.shape)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
