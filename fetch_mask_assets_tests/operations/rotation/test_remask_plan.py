"""The plan of a re-masking: replacements, links, and tokens that do not open."""

from __future__ import annotations

import pytest

from fetch_mask_assets.keys.keyset import Keyring, open_keyring
from fetch_mask_assets.masking.token import format_token
from fetch_mask_assets.operations.rotation.remask_plan import count_unopened, plan_remask
from fetch_mask_assets_tests.support.factories import keyring as old_keyring
from fetch_mask_assets_tests.support.factories import keysets, rotated


@pytest.fixture(scope="module")
def rotated_keyring() -> Keyring:
    """The shared keyring after a rotation of all its keysets."""
    return open_keyring({name: rotated(text, name) for name, text in keysets()})


def test_a_replacement_equals_the_token_of_a_new_masking(rotated_keyring: Keyring) -> None:
    new = rotated_keyring.masker("ip").mask("192.0.2.1")
    plan = plan_remask(rotated_keyring.masker("ip"), [_token("192.0.2.1"), new])
    assert plan.replacements == {_token("192.0.2.1"): new}
    assert [(link.old_token, link.new_token) for link in plan.links] == [(_token("192.0.2.1"), new)]


def test_unopened_tokens_are_counted_by_reason(rotated_keyring: Keyring) -> None:
    masker = rotated_keyring.masker("ip")
    good = masker.mask("192.0.2.1")
    altered = good[:-10] + ("A" if good[-10] != "A" else "B") + good[-9:]
    foreign = format_token(masker.field, b"\x01" + bytes(36))
    device = rotated_keyring.masker("device_id").mask("192.0.2.1")
    assert count_unopened(masker, [good, altered, foreign, device, "", "5d41402abc4b2a76"]) == {
        "altered": 1,
        "unknown_key": 1,
        "not_a_token": 3,
    }


def _token(ip: str) -> str:
    return old_keyring().masker("ip").mask(ip)
