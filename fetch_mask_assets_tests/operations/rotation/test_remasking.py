"""Where the tokens of a key are, what links a value has, what the rules of a re-masking count."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.keyset import Keyring, open_keyring
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.masking.fields import MASKED_FIELDS, MaskedField
from fetch_mask_assets.masking.token import format_token
from fetch_mask_assets.operations.rotation.remasking import (
    REMASK_RULES,
    Groups,
    RemaskFacts,
    TextRange,
    ranges_outside,
    ranges_under,
    remask,
    unopened,
)
from fetch_mask_assets_tests.support.factories import keyring as old_keyring
from fetch_mask_assets_tests.support.factories import keysets, rotated
from fetch_mask_assets_tests.support.logins import body, masked_batch

FIELDS = st.sampled_from(MASKED_FIELDS)
KEY_IDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def rotated_keyring() -> Keyring:
    """The shared keyring after a rotation of all its keysets."""
    return open_keyring({name: rotated(text, name) for name, text in keysets()})


@given(FIELDS, KEY_IDS, KEY_IDS, st.binary(min_size=32, max_size=32))
def test_a_token_is_in_the_ranges_of_its_key_and_of_no_other(
    field: MaskedField, one: int, other: int, sealed: bytes
) -> None:
    token = format_token(field, b"\x01" + one.to_bytes(4, "big") + sealed)
    assert _times(token, ranges_under(field, one)) == 1
    assert _times(token, ranges_outside(field, one)) == 0
    assert _times(token, ranges_under(field, other)) == (one == other)
    assert _times(token, ranges_outside(field, other)) == (one != other)


@given(FIELDS, KEY_IDS, st.text())
def test_any_text_is_in_one_range_and_in_one_only(
    field: MaskedField, key_id: int, text: str
) -> None:
    everywhere = (*ranges_under(field, key_id), *ranges_outside(field, key_id))
    assert _times(text, everywhere) == 1


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_what_is_left_behind_a_text_is_everything_but_what_came_before(text: str) -> None:
    left = TextRange("", None).after(text)
    assert not _times(text, [left])
    assert _times(text + "\x01", [left])


def test_links_lead_from_each_other_key_to_the_primary_one(rotated_keyring: Keyring) -> None:
    masked = masked_batch(rotated_keyring, [body(1), body(1), body(201), "not json"])
    links = batch_links(masked, rotated_keyring)
    expected = {("ip", _token("192.0.2.1"), rotated_keyring.masker("ip").mask("192.0.2.1"))} | {
        (
            "device_id",
            old_keyring().masker("device_id").mask(f"device-{number:08}"),
            rotated_keyring.masker("device_id").mask(f"device-{number:08}"),
        )
        for number in (1, 201)
    }
    assert {(link.field, link.old_token, link.new_token) for link in links} == expected
    assert len(links) == len(expected)


def test_a_keyset_of_one_key_links_nothing() -> None:
    assert batch_links(masked_batch(old_keyring(), [body(1)]), old_keyring()) == ()


def test_re_masking_gives_what_masking_would_have_given(rotated_keyring: Keyring) -> None:
    new = rotated_keyring.masker("ip").mask("192.0.2.1")
    wanted = remask(rotated_keyring.masker("ip"), [_token("192.0.2.1"), new])
    assert wanted.replacements == {_token("192.0.2.1"): new}
    assert [(link.old_token, link.new_token) for link in wanted.links] == [
        (_token("192.0.2.1"), new)
    ]


def test_what_does_not_open_is_told_apart(rotated_keyring: Keyring) -> None:
    masker = rotated_keyring.masker("ip")
    good = masker.mask("192.0.2.1")
    altered = good[:-10] + ("A" if good[-10] != "A" else "B") + good[-9:]
    foreign = format_token(masker.field, b"\x01" + bytes(36))
    device = rotated_keyring.masker("device_id").mask("192.0.2.1")
    assert unopened(masker, [good, altered, foreign, device, "", "5d41402abc4b2a76"]) == {
        "altered": 1,
        "unknown_key": 1,
        "not_a_token": 3,
    }


def test_masking_under_a_key_is_what_masking_was_while_it_was_primary(
    rotated_keyring: Keyring,
) -> None:
    for old, new in zip(old_keyring().maskers, rotated_keyring.maskers, strict=True):
        assert new.mask_under(old.primary_key_id, "192.0.2.1") == old.mask("192.0.2.1")
        assert new.mask_under(new.primary_key_id, "192.0.2.1") == new.mask("192.0.2.1")
        with pytest.raises(KeysetError, match="no enabled key"):
            old.mask_under(new.primary_key_id, "192.0.2.1")


@pytest.mark.parametrize(
    ("after", "loaded", "broken"),
    [
        ({"A": 2, "b": 1, None: 1}, 0, {}),
        ({"A": 3, "b": 1, "c": 2, None: 1}, 3, {}),
        ({"A": 3, "b": 1, None: 1}, 0, {"rows_kept": 1}),
        ({"A": 1, "b": 2, None: 1}, 0, {"groups_kept": 1}),
        ({"A": 2, "x": 1, None: 1}, 0, {"groups_kept": 1}),
        ({"A": 2, "b": 1}, 0, {"rows_kept": 1, "groups_kept": 1}),
        ({"a": 2, "b": 1, None: 1}, 0, {"groups_kept": 1}),
    ],
)
def test_groups_are_followed_along_their_links(
    after: dict[str | None, int], loaded: int, broken: dict[str, int]
) -> None:
    links = {"a": "A", "unused": "u"}
    facts = RemaskFacts(
        field="ip",
        before=_groups({"a": 2, "b": 1, None: 1}, {}, 10),
        after=_groups(after, links, 10 + loaded),
        rows_left=0,
        unopened={},
    )
    assert _broken(facts) == broken


def test_groups_that_fall_together_are_counted() -> None:
    facts = RemaskFacts(
        field="ip",
        before=_groups({"a": 2, "b": 1}, {}, 0),
        after=_groups({"A": 3}, {"a": "A", "b": "A"}, 0),
        rows_left=4,
        unopened={"altered": 2, "not_a_token": 1},
    )
    assert _broken(facts) == {"groups_kept": 1, "only_primary_key": 4, "every_token_opens": 3}


def test_an_empty_table_keeps_every_rule() -> None:
    nothing = _groups({}, {}, 0)
    assert _broken(RemaskFacts("ip", nothing, nothing, 0, {})) == {}


def _broken(facts: RemaskFacts) -> dict[str, int]:
    counts = {rule.name: rule.count_broken(facts) for rule in REMASK_RULES}
    return {name: count for name, count in counts.items() if count}


def _groups(rows: dict[str | None, int], links: dict[str, str], loaded: int) -> Groups:
    return Groups(
        pl.DataFrame({"token": list(rows), "rows": list(rows.values())}, _GROUPS),
        pl.DataFrame({"old_token": list(links), "new_token": list(links.values())}, _LINKS),
        loaded,
    )


_GROUPS = {"token": pl.String(), "rows": pl.Int64()}
_LINKS = {"old_token": pl.String(), "new_token": pl.String()}


def _token(ip: str) -> str:
    return old_keyring().masker("ip").mask(ip)


def _times(text: str, ranges: Iterable[TextRange]) -> int:
    place = _bytes(text)
    return sum(
        _bytes(each.low) <= place and (each.high is None or place < _bytes(each.high))
        for each in ranges
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
