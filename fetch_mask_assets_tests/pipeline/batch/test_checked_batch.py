"""A verdict belongs to the batch that it was computed on."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest

from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.pipeline.batch import checked_batch
from fetch_mask_assets.pipeline.batch.checked_batch import CheckedBatch, mask_and_check
from fetch_mask_assets.pipeline.batch.frames import mask_batch
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch
from fetch_mask_assets.pipeline.batch.masking_rules import broken_rules
from fetch_mask_assets_tests.support.factories import body, keyring, raw_batch

BODIES = [body(user_id=f"u-{number}", device_id=f"device-{number:02}") for number in range(8)]


def _batch(leaks: int = 0) -> MaskedBatch:
    """A masked batch in which the first logins have their device id as device type."""
    raw = raw_batch(BODIES)
    return MaskedBatch(raw, _leaking(mask_batch(raw, keyring()), leaks), keyring())


def _leaking(masked: pl.DataFrame, leaks: int) -> pl.DataFrame:
    device_ids = pl.Series([f"device-{number:02}" for number in range(masked.height)])
    is_leak = pl.int_range(pl.len()) < leaks
    return masked.with_columns(
        device_type=pl.when(is_leak).then(device_ids).otherwise("device_type")
    )


def test_a_batch_has_the_verdict_of_the_rules() -> None:
    assert CheckedBatch(_batch()).broken == {}
    assert CheckedBatch(_batch(leaks=3)).broken == {"no_raw_value": 3}


def test_a_verdict_cannot_be_given() -> None:
    with pytest.raises(TypeError):
        CheckedBatch(_batch(leaks=3), {})  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="broken"):
        dataclasses.replace(CheckedBatch(_batch(leaks=3)), broken={})
    with pytest.raises(dataclasses.FrozenInstanceError):
        CheckedBatch(_batch(leaks=3)).broken = {}  # type: ignore[misc]


def test_a_verdict_does_not_pass_to_another_batch() -> None:
    good = CheckedBatch(_batch())

    assert dataclasses.replace(good, batch=_batch(leaks=3)).broken == {"no_raw_value": 3}


def test_a_frame_that_is_changed_in_place_is_not_the_one_that_was_judged() -> None:
    checked = CheckedBatch(_batch())

    checked.masked.replace_column(3, pl.Series("user_id", ["device-00"] * len(BODIES)))

    assert checked.masked["user_id"].to_list() == [f"u-{number}" for number in range(len(BODIES))]


@pytest.mark.parametrize(
    ("leaks", "runs", "rejected", "broken"),
    [(0, 1, 0, {}), (2, 2, 2, {}), (8, 1, 0, {"no_raw_value": 8})],
    ids=["none", "few rows", "most rows"],
)
def test_the_rules_run_once_and_again_if_rows_were_quarantined(
    monkeypatch: pytest.MonkeyPatch, leaks: int, runs: int, rejected: int, broken: dict[str, int]
) -> None:
    judged: list[MaskedBatch] = []

    def mask(raw: pl.DataFrame, keys: Keyring) -> pl.DataFrame:
        return _leaking(mask_batch(raw, keys), leaks)

    def judge(batch: MaskedBatch) -> dict[str, int]:
        judged.append(batch)
        return broken_rules(batch)

    monkeypatch.setattr(checked_batch, "mask_batch", mask)
    monkeypatch.setattr(checked_batch, "broken_rules", judge)

    actual = mask_and_check(raw_batch(BODIES), keyring())

    assert (len(judged), actual.masked["reason"].count()) == (runs, rejected)
    assert actual.broken == broken
    assert judged[-1].masked.equals(actual.masked)
