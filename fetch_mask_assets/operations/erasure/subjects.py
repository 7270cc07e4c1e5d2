"""The subjects of an erasure: their validation, their tokens, and the search for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from enum import StrEnum

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.keyset import FieldMasker, Keyring
from fetch_mask_assets.masking.addresses import addresses_in, packed
from fetch_mask_assets.masking.canonical import MAX_DEVICE_ID_BYTES, pack_ip, unpack_ip
from fetch_mask_assets.operations.erasure.body_search import (
    BodySearch,
    Leaf,
    contains,
    text_search,
    word_search,
)
from fetch_mask_assets.pipeline.contract.login_event import MAX_LENGTH, MIN_REVEALING_LENGTH


class SubjectError(FetchMaskError):
    """A value to erase is not valid; names its line, never the value."""


class SubjectKind(StrEnum):
    """The kind of the subjects."""

    IP = "ip"
    DEVICE_ID = "device_id"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Subjects:
    """The values to erase, all of one kind."""

    kind: SubjectKind
    values: tuple[str, ...] = dataclass_field(repr=False)

    def tokens(self, keyring: Keyring) -> tuple[str, ...]:
        """Their tokens under every key, even disabled ones, and MD5 digests; none for users."""
        maskers = {each.field.name: each for each in keyring.maskers}
        masker = maskers.get(self.kind.value)
        return () if masker is None else tuple(sorted(_tokens(masker, self.values)))

    def matcher(self) -> Callable[[str], bool]:
        """A test for message bodies that have one of the subjects.

        In a body that is JSON each text is compared, by the canonical form. Any other body is
        searched as text, which may match more than the subject.
        """
        search = _SEARCHES[self.kind](self.values)
        return lambda body: contains(search, body)


def parse_subjects(kind: SubjectKind, lines: Iterable[str]) -> Subjects:
    """The distinct values on lines of text, in canonical form; empty lines are left out.

    Raises:
        SubjectError: there are no values, or a line is not a value of this kind.
    """
    values: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        value = line.rstrip("\r\n")
        if value.strip():
            values[_checked(kind, value, number)] = None
    if not values:
        raise SubjectError("no values were given. Give one per line on standard input.")
    return Subjects(kind, tuple(values))


def _checked(kind: SubjectKind, value: str, number: int) -> str:
    try:
        return _CHECKS[kind](value)
    except ValueError:
        raise SubjectError(
            f"line {number} is not {_NAMES[kind]}. Nothing was erased, for any line."
        ) from None


def _checked_ip(value: str) -> str:
    return unpack_ip(pack_ip(value.strip()))


def _checked_device_id(value: str) -> str:
    if not 0 < len(value.encode()) <= MAX_DEVICE_ID_BYTES:
        raise ValueError("too long")
    return value


def _checked_user(value: str) -> str:
    if len(value) > MAX_LENGTH["user_id"] or "\0" in value:
        raise ValueError("too long")
    value.encode()
    return value


_CHECKS: dict[SubjectKind, Callable[[str], str]] = {
    SubjectKind.IP: _checked_ip,
    SubjectKind.DEVICE_ID: _checked_device_id,
    SubjectKind.USER: _checked_user,
}
_NAMES = {
    SubjectKind.IP: "an IP address",
    SubjectKind.DEVICE_ID: "a device id",
    SubjectKind.USER: "a user id",
}


def _tokens(masker: FieldMasker, values: Iterable[str]) -> set[str]:
    return {form for value in values for form in (*_digests(value), *masker.tokens_of(value))}


def _digests(value: str) -> tuple[str, str]:
    # A table that came from MD5 has these digests until it is upgraded.
    digest = hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()
    return digest, digest.upper()


def _ip_search(values: tuple[str, ...]) -> BodySearch:
    targets = {pack_ip(value) for value in values}

    def in_text(text: str) -> bool:
        whole = packed(text.strip())
        return not targets.isdisjoint(whole or addresses_in(text))

    return BodySearch(in_leaf=lambda leaf: in_text(leaf.text), in_text=in_text)


def _device_search(values: tuple[str, ...]) -> BodySearch:
    targets = set(values)
    has_word = word_search(value for value in values if len(value) >= MIN_REVEALING_LENGTH)

    def in_leaf(leaf: Leaf) -> bool:
        return not targets.isdisjoint((leaf.text, leaf.text.strip())) or has_word(leaf.text)

    return BodySearch(in_leaf=in_leaf, in_text=text_search(values))


# The whole text of another field may equal a short user id.
_OTHER_FIELDS = MAX_LENGTH.keys() - {"user_id"}


def _user_search(values: tuple[str, ...]) -> BodySearch:
    targets = set(values)

    def in_leaf(leaf: Leaf) -> bool:
        if leaf.name in _OTHER_FIELDS:
            return False
        return not targets.isdisjoint((leaf.text, leaf.text.strip()))

    return BodySearch(in_leaf=in_leaf, in_text=text_search(values))


_SEARCHES: dict[SubjectKind, Callable[[tuple[str, ...]], BodySearch]] = {
    SubjectKind.IP: _ip_search,
    SubjectKind.DEVICE_ID: _device_search,
    SubjectKind.USER: _user_search,
}
