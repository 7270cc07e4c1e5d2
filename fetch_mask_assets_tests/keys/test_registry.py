"""Keysets must be the ones that the table's tokens were made with."""

from __future__ import annotations

import pytest

from fetch_mask_assets.keys.keyset import open_keyring
from fetch_mask_assets.keys.registry import CheckValues, key_conflicts
from fetch_mask_assets_tests.support.factories import new_keysets, rotated

KNOWN: CheckValues = {"ip": {1: b"one"}, "device_id": {2: b"two"}, "quarantine": {3: b"three"}}


@pytest.mark.parametrize(
    ("registered", "present"),
    [
        ({}, {}),
        ({}, KNOWN),
        (KNOWN, KNOWN),
        ({"ip": {}}, KNOWN),
        (KNOWN, {**KNOWN, "ip": {1: b"one", 4: b"four"}}),
        (KNOWN, {**KNOWN, "email": {5: b"five"}}),
        ({}, {"ip": {1: b"one"}, "device_id": {1: b"two"}}),
    ],
    ids=["nothing", "new database", "same", "name only", "rotated", "new field", "one id twice"],
)
def test_keysets_that_hold_every_known_key_may_be_used(
    registered: CheckValues, present: CheckValues
) -> None:
    assert key_conflicts(registered, present) == ()


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (
            {**KNOWN, "ip": {1: b"other"}},
            ("the keyset of ip has another key under the id 1",),
        ),
        (
            {**KNOWN, "ip": {4: b"four"}},
            ("the keyset of ip lacks key 1, which is registered",),
        ),
        (
            {**KNOWN, "ip": {}},
            ("the keyset of ip lacks key 1, which is registered",),
        ),
        (
            {"ip": {1: b"one"}, "device_id": {2: b"two"}},
            ("the keyset of quarantine lacks key 3, which is registered",),
        ),
        (
            {**KNOWN, "ip": {1: b"one", 9: b"two"}},
            ("the keysets of device_id and ip share a key",),
        ),
        (
            {"ip": {2: b"two"}, "device_id": {1: b"one"}, "quarantine": {3: b"three"}},
            (
                "the keyset of ip lacks key 1, which is registered",
                "the keyset of device_id lacks key 2, which is registered",
            ),
        ),
    ],
    ids=["another key", "key gone", "no keys", "keyset gone", "shared", "swapped"],
)
def test_other_keysets_are_refused_with_the_reason(
    present: CheckValues, expected: tuple[str, ...]
) -> None:
    actual = key_conflicts(KNOWN, present)

    assert expected == actual


def test_real_keysets_agree_with_themselves_and_after_a_rotation_but_not_with_others() -> None:
    keysets = new_keysets()
    known = open_keyring(keysets).check_values
    after = open_keyring(keysets | {"ip": rotated(keysets["ip"], "ip")}).check_values

    assert key_conflicts(known, known) == ()
    assert key_conflicts(known, after) == ()
    assert len(key_conflicts(after, known)) == 1
    assert len(key_conflicts(known, open_keyring(new_keysets()).check_values)) == 3


def test_one_keyset_for_both_fields_is_refused() -> None:
    keysets = new_keysets()
    same = open_keyring(keysets | {"device_id": keysets["ip"]}).check_values

    assert key_conflicts({}, same) == ("the keysets of device_id and ip share a key",)


def test_no_conflict_shows_a_check_value() -> None:
    known = {"ip": {1: b"canary-1", 2: b"canary-2"}}
    present = {"ip": {1: b"canary-3"}, "device_id": {4: b"canary-3"}}

    actual = key_conflicts(known, present)

    assert len(actual) == 3
    assert "canary" not in " ".join(actual)
