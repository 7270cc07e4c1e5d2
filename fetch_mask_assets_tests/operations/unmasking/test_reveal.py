"""Each token is unmasked by itself, or has the error that refused it."""

from __future__ import annotations

from fetch_mask_assets.operations.unmasking.reveal import reveal_tokens
from fetch_mask_assets_tests.support.factories import DEVICE_ID, IP, keyring


def test_a_refused_token_does_not_stop_the_others() -> None:
    keys = keyring()
    values = (IP, DEVICE_ID)
    ip, device = (each.mask(text) for each, text in zip(keys.maskers, values, strict=True))
    foreign = "ip:" + device.partition(":")[2]

    first, second, third, fourth = reveal_tokens([ip, foreign, "junk", device], keys.maskers)

    assert (first.original, first.error) == (IP, None)
    assert (fourth.original, fourth.error) == (DEVICE_ID, None)
    assert (second.original, third.original) == (None, None)
    assert second.error
    assert third.error == "not a token of ip or device_id."


def test_the_repr_has_no_original() -> None:
    keys = keyring()
    [revealed] = reveal_tokens([keys.maskers[0].mask(IP)], keys.maskers)

    assert IP not in repr(revealed)
