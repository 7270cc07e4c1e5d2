"""What is to be erased, under which tokens, and whether a message holds it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, NamedTuple

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.keyset import FieldMasker, Keyring
from fetch_mask_assets.masking.addresses import addresses_in, pack_ip, packed
from fetch_mask_assets.masking.canonical import IP_ADDRESS, TEXT, CanonicalForm
from fetch_mask_assets.masking.fields import FIELD_NAMES, MASKED_FIELDS, USER_ID, masked_field
from fetch_mask_assets.pipeline.contract.login_event import MIN_REVEALING_LENGTH


class SubjectError(FetchMaskError):
    """What was given to be erased is not what it should be; names the line, never the value."""


USER = "user"
SUBJECT_KINDS = (*(field.name for field in MASKED_FIELDS), USER)
"""The kinds of subjects: values of a masked field, by its name, and users."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """The values of one kind that are to be erased."""

    kind: str
    values: tuple[str, ...] = dataclass_field(repr=False)

    def tokens(self, keyring: Keyring) -> tuple[str, ...]:
        """Their tokens under every key, retired ones too, and their MD5; none for users."""
        if self.kind == USER:
            return ()
        return tuple(sorted(_tokens(keyring.masker(self.kind), self.values)))

    def holds(self) -> Callable[[str], bool]:
        """A function that says whether a message body holds one of them.

        A body that is JSON is read to its leaves, which are compared by the canonical form. In
        any other body the value is sought as text, which may find more than is meant.
        """
        finder = _finder(self.kind, self.values)
        return lambda body: _holds(finder, body)


def parse_subjects(kind: str, lines: Iterable[str]) -> Subjects:
    """The values to erase, one a line; empty lines are left out.

    Raises:
        SubjectError: there is none, or a line cannot be a value of this kind.
    """
    values: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        value = line.rstrip("\r\n")
        if value.strip():
            values[_checked(kind, value, number)] = None
    if not values:
        raise SubjectError("nothing to erase was given: one value a line on standard input.")
    return Subjects(kind, tuple(values))


def _checked(kind: str, value: str, number: int) -> str:
    try:
        return _checked_user(value) if kind == USER else _checked_value(kind, value)
    except ValueError:
        raise SubjectError(
            f"line {number} is not a valid value of {kind}: nothing was erased, not of the other"
            " lines either."
        ) from None


def _checked_value(kind: str, value: str) -> str:
    form = masked_field(kind).form
    text = value.strip() if form is IP_ADDRESS else value
    form.check(text)
    return form.to_text(form.to_bytes(text))


def _checked_user(value: str) -> str:
    if len(value) > USER_ID.max_length or "\0" in value:
        raise ValueError("too long")
    value.encode()
    return value


def _tokens(masker: FieldMasker, values: Iterable[str]) -> set[str]:
    return {form for value in values for form in (*_digests(value), *masker.tokens_of(value))}


def _digests(value: str) -> tuple[str, str]:
    # What a table that came from MD5 holds of the value until it is upgraded.
    digest = hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()
    return digest, digest.upper()


class _Leaf(NamedTuple):
    """A text of a JSON body, and the name of the member that it stands under."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class _Finder:
    """How to find a value: in a leaf of a JSON body, and in a text that is not JSON."""

    in_leaf: Callable[[_Leaf], bool]
    in_text: Callable[[str], bool]


def _holds(finder: _Finder, body: str) -> bool:
    try:
        return any(finder.in_leaf(leaf) for leaf in _leaves(_DECODER.decode(body)))
    except (ValueError, RecursionError):
        return any(finder.in_text(text) for text in (body, _unescaped(body)))


class _Members(list[tuple[str, Any]]):
    """The members of an object, each of those that share a name too."""


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Members, parse_int=str, parse_float=str, parse_constant=str
)


def _leaves(value: object) -> Iterator[_Leaf]:
    pending = [("", value)]
    while pending:
        name, each = pending.pop()
        if isinstance(each, _Members):
            pending += each
            yield from (_Leaf("", member) for member, _ in each)
        elif isinstance(each, list):
            pending += ((name, child) for child in each)
        elif isinstance(each, str):
            yield _Leaf(name, each)
            pending += ((name, inner) for inner in _inner(each))


def _inner(text: str) -> Iterator[object]:
    """The JSON that is the text of a leaf, as in an envelope."""
    if text.lstrip()[:1] not in {"{", "["}:
        return
    try:
        yield _DECODER.decode(text)
    except (ValueError, RecursionError):
        return


_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|(["\\/]))')


def _unescaped(text: str) -> str:
    plain = _ESCAPE.sub(lambda found: found[2] or chr(int(found[1], 16)), text)
    # Two escapes make one character beyond the first plane.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _ip_finder(values: tuple[str, ...]) -> _Finder:
    wanted = {pack_ip(value) for value in values}

    def in_text(text: str) -> bool:
        whole = packed(text.strip())
        return not wanted.isdisjoint(whole or addresses_in(text))

    return _Finder(in_leaf=lambda leaf: in_text(leaf.text), in_text=in_text)


def _text_finder(values: tuple[str, ...]) -> _Finder:
    wanted = set(values)
    alone = _alone(value for value in values if len(value) >= MIN_REVEALING_LENGTH)

    def in_leaf(leaf: _Leaf) -> bool:
        return not wanted.isdisjoint((leaf.text, leaf.text.strip())) or alone(leaf.text)

    return _Finder(in_leaf=in_leaf, in_text=_anywhere(values))


# A short user id may well be another field's whole text.
_NOT_OF_USER = frozenset(FIELD_NAMES) - {USER_ID.name}


def _user_finder(values: tuple[str, ...]) -> _Finder:
    wanted = set(values)

    def in_leaf(leaf: _Leaf) -> bool:
        if leaf.name in _NOT_OF_USER:
            return False
        return not wanted.isdisjoint((leaf.text, leaf.text.strip()))

    return _Finder(in_leaf=in_leaf, in_text=_anywhere(values))


def _anywhere(values: tuple[str, ...]) -> Callable[[str], bool]:
    telling = [value for value in values if len(value) >= MIN_REVEALING_LENGTH]
    alone = _alone(value for value in values if len(value) < MIN_REVEALING_LENGTH)
    return lambda text: any(value in text for value in telling) or alone(text)


def _alone(values: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text holds one of the values that is not a part of a longer word."""
    patterns = "|".join(re.escape(value) for value in values)
    pattern = re.compile(rf"(?<!\w)(?:{patterns})(?!\w)")
    return (lambda text: pattern.search(text) is not None) if patterns else (lambda _text: False)


_FINDERS: dict[CanonicalForm, Callable[[tuple[str, ...]], _Finder]] = {
    IP_ADDRESS: _ip_finder,
    TEXT: _text_finder,
}


def _finder(kind: str, values: tuple[str, ...]) -> _Finder:
    return _user_finder(values) if kind == USER else _FINDERS[masked_field(kind).form](values)
