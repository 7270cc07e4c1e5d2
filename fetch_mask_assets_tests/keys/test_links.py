"""Links lead from the tokens of older keys to the token of the primary key."""

from __future__ import annotations

import pytest

from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.keyset import Keyring, open_keyring
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets_tests.support.factories import keyring as old_keyring
from fetch_mask_assets_tests.support.factories import keysets, rotated
from fetch_mask_assets_tests.support.logins import body, masked_batch


@pytest.fixture(scope="module")
def rotated_keyring() -> Keyring:
    """The shared keyring after a rotation of all its keysets."""
    return open_keyring({name: rotated(text, name) for name, text in keysets()})


def test_links_lead_from_each_other_key_to_the_primary_one(rotated_keyring: Keyring) -> None:
    masked = masked_batch(rotated_keyring, [body(1), body(1), body(201), "not json"])
    links = batch_links(masked, rotated_keyring)
    expected = {
        (
            "ip",
            old_keyring().masker("ip").mask("192.0.2.1"),
            rotated_keyring.masker("ip").mask("192.0.2.1"),
        )
    } | {
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


def test_masking_under_an_older_key_equals_masking_while_it_was_primary(
    rotated_keyring: Keyring,
) -> None:
    for old, new in zip(old_keyring().maskers, rotated_keyring.maskers, strict=True):
        assert new.mask_under(old.primary_key_id, "192.0.2.1") == old.mask("192.0.2.1")
        assert new.mask_under(new.primary_key_id, "192.0.2.1") == new.mask("192.0.2.1")
        with pytest.raises(KeysetError, match="no enabled key"):
            old.mask_under(new.primary_key_id, "192.0.2.1")
