"""The subjects of an erasure: their validation, their tokens, and the search for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.masking.addresses import addresses_in, pack_ip, packed
from fetch_mask_assets.masking.canonical import IP_ADDRESS, TEXT, CanonicalForm
from fetch_mask_assets.masking.fields import FIELD_NAMES, USER_ID, masked_field
from fetch_mask_assets.operations.erasure.body_search import (
    BodySearch,
    Leaf,
    contains,
    text_search,
    word_search,
)
from fetch_mask_assets.pipeline.contract.login_event import MIN_REVEALING_LENGTH


class SubjectError(FetchMaskError):
    """A value to erase is not valid; names its line, never the value."""


USER = "user"


@dataclass(frozen=True, slots=True)
class Subjects:
    """The values to erase, all of one kind."""

    kind: str
    values: tuple[str, ...] = dataclass_field(repr=False)

    def tokens(self, keyring: Keyring) -> tuple[str, ...]:
        """Their tokens under every key, even disabled ones, and MD5 digests; none for users."""
        if self.kind == USER:
            return ()
        return tuple(sorted(_tokens(keyring.masker(self.kind), self.values)))

    def matcher(self) -> Callable[[str], bool]:
        """A test for message bodies that have one of the subjects.

        In a body that is JSON each text is compared, by the canonical form. Any other body is
        searched as text, which may match more than the subject.
        """
        search = _search(self.kind, self.values)
        return lambda body: contains(search, body)


def parse_subjects(kind: str, lines: Iterable[str]) -> Subjects:
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


def _checked(kind: str, value: str, number: int) -> str:
    try:
        return _checked_user(value) if kind == USER else _checked_value(kind, value)
    except ValueError:
        raise SubjectError(
            f"line {number} is not {_name(kind)}. Nothing was erased, for any line."
        ) from None


def _name(kind: str) -> str:
    if kind == USER:
        return "a valid user id"
    field = masked_field(kind)
    return field.form.name if field.form is IP_ADDRESS else f"a valid {field.label}"


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
    # A table that came from MD5 has these digests until it is upgraded.
    digest = hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()
    return digest, digest.upper()


def _address_search(values: tuple[str, ...]) -> BodySearch:
    targets = {pack_ip(value) for value in values}

    def in_text(text: str) -> bool:
        whole = packed(text.strip())
        return not targets.isdisjoint(whole or addresses_in(text))

    return BodySearch(in_leaf=lambda leaf: in_text(leaf.text), in_text=in_text)


def _text_search(values: tuple[str, ...]) -> BodySearch:
    targets = set(values)
    has_word = word_search(value for value in values if len(value) >= MIN_REVEALING_LENGTH)

    def in_leaf(leaf: Leaf) -> bool:
        return not targets.isdisjoint((leaf.text, leaf.text.strip())) or has_word(leaf.text)

    return BodySearch(in_leaf=in_leaf, in_text=text_search(values))


# The whole text of another field may equal a short user id.
_OTHER_FIELDS = frozenset(FIELD_NAMES) - {USER_ID.name}


def _user_search(values: tuple[str, ...]) -> BodySearch:
    targets = set(values)

    def in_leaf(leaf: Leaf) -> bool:
        if leaf.name in _OTHER_FIELDS:
            return False
        return not targets.isdisjoint((leaf.text, leaf.text.strip()))

    return BodySearch(in_leaf=in_leaf, in_text=text_search(values))


_SEARCHES: dict[CanonicalForm, Callable[[tuple[str, ...]], BodySearch]] = {
    IP_ADDRESS: _address_search,
    TEXT: _text_search,
}


def _search(kind: str, values: tuple[str, ...]) -> BodySearch:
    return _user_search(values) if kind == USER else _SEARCHES[masked_field(kind).form](values)
