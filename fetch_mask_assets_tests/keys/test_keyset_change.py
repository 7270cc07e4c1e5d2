"""Keysets change so that what was masked before still opens, and never lose a key."""

from __future__ import annotations

import json

import pytest

from fetch_mask_assets.errors import KeysetError, TokenError
from fetch_mask_assets.keys import keyset_change
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.keyset_change import (
    KeyState,
    disabled,
    enabled,
    key_states,
    rotated,
)
from fetch_mask_assets_tests.support.factories import new_keysets, shown

IP = "192.0.2.1"


def _ring(ip: str) -> Keyring:
    return open_keyring(new_keysets() | {"ip": ip})


def _primary(name: str, keyset: str) -> int:
    (key_id,) = (state.key_id for state in key_states(name, keyset) if state.is_primary)
    return key_id


@pytest.mark.parametrize("name", KEYSET_NAMES)
def test_a_rotated_keyset_keeps_its_old_key_and_has_a_new_primary_one(name: str) -> None:
    old = new_keyset(name)
    (before,) = key_states(name, old)

    rotation = rotated(name, old)

    assert key_states(name, rotation.keyset) == (
        KeyState(before.key_id, is_primary=False, is_enabled=True),
        KeyState(rotation.key_id, is_primary=True, is_enabled=True),
    )
    assert json.loads(rotation.keyset)["key"][0] == json.loads(old)["key"][0]


def test_what_was_masked_before_a_rotation_opens_after_it_and_is_masked_otherwise() -> None:
    old = new_keyset("ip")
    token = _ring(old).masker("ip").mask(IP)
    after = _ring(rotated("ip", old).keyset).masker("ip")

    assert after.unmask(token) == IP
    assert after.mask(IP) != token
    assert after.unmask(after.mask(IP)) == IP


def test_ten_rotations_keep_all_keys_apart() -> None:
    keyset = new_keyset("device_id")
    for _ in range(10):
        keyset = rotated("device_id", keyset).keyset

    members = json.loads(keyset)["key"]
    assert len({key["keyId"] for key in members}) == 11
    assert len({key["keyData"]["value"] for key in members}) == 11


def test_a_new_key_never_takes_the_id_of_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first, known, free = (new_keyset("ip") for _ in range(3))
    made = iter([first, known, free])
    monkeypatch.setattr(keyset_change, "new_keyset", lambda _name: next(made))

    rotation = rotated("ip", first, reserved=[_primary("ip", known)])

    assert rotation.key_id == _primary("ip", free)


def test_a_disabled_key_opens_nothing_and_opens_again_when_it_is_brought_back() -> None:
    old = new_keyset("ip")
    token = _ring(old).masker("ip").mask(IP)
    key_id = _primary("ip", old)
    without = disabled("ip", rotated("ip", old).keyset, key_id)

    with pytest.raises(TokenError, match=f"key {key_id} is not in the keyset"):
        _ring(without).masker("ip").unmask(token)
    assert [state.is_enabled for state in key_states("ip", without)] == [False, True]
    back = enabled("ip", without, key_id)
    assert _ring(back).masker("ip").unmask(token) == IP
    assert _primary("ip", back) == _primary("ip", without)


def test_the_primary_key_is_not_disabled() -> None:
    keyset = new_keyset("ip")

    with pytest.raises(KeysetError, match="is the primary key of the keyset of ip: rotate first"):
        disabled("ip", keyset, _primary("ip", keyset))


@pytest.mark.parametrize("change", [disabled, enabled])
def test_a_key_that_is_not_there_is_named(change: object) -> None:
    assert callable(change)
    with pytest.raises(KeysetError, match="key 7 is not in the keyset of ip"):
        change("ip", new_keyset("ip"), 7)


@pytest.mark.parametrize("change", [rotated, key_states])
@pytest.mark.parametrize("text", ["", "canary", "{}", new_keyset("quarantine")])
def test_what_is_no_keyset_of_that_name_is_not_changed(change: object, text: str) -> None:
    assert callable(change)
    with pytest.raises(KeysetError, match=r"^the keyset of ip ") as caught:
        change("ip", text)
    assert "canary" not in shown(caught.value)


def test_a_rotation_and_its_states_show_no_key() -> None:
    rotation = rotated("ip", new_keyset("ip"))
    material = [key["keyData"]["value"] for key in json.loads(rotation.keyset)["key"]]

    seen = repr(rotation) + repr(key_states("ip", rotation.keyset))

    assert not any(value in seen for value in material)
