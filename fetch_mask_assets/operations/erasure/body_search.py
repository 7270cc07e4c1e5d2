"""Searching message bodies for a value: in the texts of their JSON, or in the body as text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.masker import Sealer
from fetch_mask_assets.operations.quarantine.messages import QuarantinedMessage
from fetch_mask_assets.pipeline.contract.login_event import MIN_REVEALING_LENGTH


class Leaf(NamedTuple):
    """A text in a JSON body, and the key that it is under, or an empty name."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class BodySearch:
    """The tests for a value: of a leaf of a JSON body, and of a body that is not JSON."""

    in_leaf: Callable[[Leaf], bool]
    in_text: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class QuarantineMatches:
    """Search of the quarantine: the ids of matching messages, and counts of the others."""

    message_ids: list[str]
    unreadable: int
    examined: int


def search_quarantine(
    messages: Iterable[QuarantinedMessage], matches: Callable[[str], bool], sealer: Sealer
) -> QuarantineMatches:
    """Open each message in memory and test its body; bodies that do not open are counted."""
    message_ids: list[str] = []
    unreadable = examined = 0
    for message in messages:
        examined += 1
        try:
            body = sealer.open(message.sealed_body, message.message_id)
        except TokenError:
            unreadable += 1
            continue
        if matches(body):
            message_ids.append(message.message_id)
    return QuarantineMatches(message_ids, unreadable, examined)


def contains(search: BodySearch, body: str) -> bool:
    """Return whether a body has the value; a body that is not JSON is searched as text."""
    try:
        return any(search.in_leaf(leaf) for leaf in _leaves(_DECODER.decode(body)))
    except (ValueError, RecursionError):
        return any(search.in_text(text) for text in (body, _unescaped(body)))


class _Members(list[tuple[str, Any]]):
    """The members of an object, with repeated keys."""


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Members, parse_int=str, parse_float=str, parse_constant=str
)


def _leaves(value: object) -> Iterator[Leaf]:
    pending = [("", value)]
    while pending:
        name, each = pending.pop()
        if isinstance(each, _Members):
            pending += each
            yield from (Leaf("", member) for member, _ in each)
        elif isinstance(each, list):
            pending += ((name, child) for child in each)
        elif isinstance(each, str):
            yield Leaf(name, each)
            pending += ((name, inner) for inner in _inner(each))


def _inner(text: str) -> Iterator[object]:
    """The JSON that a leaf contains as text, as an envelope does."""
    if text.lstrip()[:1] not in {"{", "["}:
        return
    try:
        yield _DECODER.decode(text)
    except (ValueError, RecursionError):
        return


_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|(["\\/]))')


def _unescaped(text: str) -> str:
    plain = _ESCAPE.sub(lambda found: found[2] or chr(int(found[1], 16)), text)
    # Two escapes make one character beyond the basic plane.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text_search(values: tuple[str, ...]) -> Callable[[str], bool]:
    """A test for the values anywhere in a text; short ones as whole words only."""
    long = [value for value in values if len(value) >= MIN_REVEALING_LENGTH]
    has_word = word_search(value for value in values if len(value) < MIN_REVEALING_LENGTH)
    return lambda text: any(value in text for value in long) or has_word(text)


def word_search(values: Iterable[str]) -> Callable[[str], bool]:
    """A test for the values as whole words: not as parts of a longer word."""
    patterns = "|".join(re.escape(value) for value in values)
    pattern = re.compile(rf"(?<!\w)(?:{patterns})(?!\w)")
    return (lambda text: pattern.search(text) is not None) if patterns else (lambda _text: False)
