"""What is normal for a batch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from fetch_mask_assets.pipeline.batch.frames import mask_batch
from fetch_mask_assets.pipeline.batch.thresholds import (
    MASKED_THRESHOLDS,
    RAW_THRESHOLDS,
    Threshold,
    oldest_age_seconds,
)
from fetch_mask_assets.settings import Tuning, WarningLimits
from fetch_mask_assets_tests.support.factories import SENT_AT, body, keyring, raw_batch

NOW = SENT_AT + timedelta(hours=1)
REDELIVERED, AGE = RAW_THRESHOLDS
REJECTED, UNNUMBERED = MASKED_THRESHOLDS


def _masked(*bodies: str) -> pl.DataFrame:
    return mask_batch(raw_batch(bodies), keyring())


@pytest.mark.parametrize(
    "threshold", [*RAW_THRESHOLDS, *MASKED_THRESHOLDS], ids=lambda each: each.name
)
def test_an_empty_batch_measures_nothing(threshold: Threshold) -> None:
    frame = raw_batch([]) if threshold in RAW_THRESHOLDS else _masked()

    assert threshold.value(frame, NOW) == 0.0


def test_redelivered_messages_are_measured_in_percent() -> None:
    raw = pl.concat(
        [raw_batch([body()] * 3), raw_batch(["x"], receive_count=2)],
    )

    actual = REDELIVERED.value(raw, NOW)

    assert 25.0 == actual  # noqa: SIM300 (expected first)


def test_the_age_is_that_of_the_oldest_message() -> None:
    raw = pl.concat(
        [raw_batch([body()]), raw_batch([body()], sent_at=SENT_AT - timedelta(milliseconds=500))]
    )

    actual = AGE.value(raw, NOW)

    assert 3_600.5 == actual  # noqa: SIM300 (expected first)


def test_a_message_from_the_future_has_no_age() -> None:
    actual = oldest_age_seconds(raw_batch([body()]), SENT_AT - timedelta(seconds=1))

    assert actual == 0.0


def test_an_age_is_the_same_in_every_time_zone() -> None:
    there = NOW.astimezone(tz=None)

    assert oldest_age_seconds(raw_batch([body()]), there) == 3_600.0
    assert datetime(2024, 2, 28, 13, tzinfo=UTC) == NOW


@pytest.mark.parametrize(
    ("bodies", "expected"),
    [([body()], 0.0), ([body(), "x"], 50.0), (["x"] * 4, 100.0), ([body()] * 9 + ["x"], 10.0)],
)
def test_rejected_messages_are_measured_in_percent(bodies: list[str], expected: float) -> None:
    actual = REJECTED.value(_masked(*bodies), NOW)

    assert expected == actual


@pytest.mark.parametrize(
    ("bodies", "expected"),
    [
        ([body()], 0.0),
        ([body(app_version="beta")], 100.0),
        ([body(), body(app_version="beta")], 50.0),
        ([body(), body(app_version="beta"), "x", "x"], 50.0),
        (["x", "x"], 0.0),
    ],
)
def test_versions_without_a_number_are_measured_among_the_logins(
    bodies: list[str], expected: float
) -> None:
    actual = UNNUMBERED.value(_masked(*bodies), NOW)

    assert expected == actual


def test_each_threshold_has_a_limit_and_a_setting_of_its_own() -> None:
    limits = WarningLimits(
        warn_rejected_percent=1,
        warn_unparsed_version_percent=2,
        warn_redelivered_percent=3,
        warn_oldest_age_seconds=4,
    )
    thresholds = (*RAW_THRESHOLDS, *MASKED_THRESHOLDS)

    assert [each.limit(limits) for each in thresholds] == [3, 4, 1, 2]
    assert [each.unit for each in thresholds] == ["%", "s", "%", "%"]


def test_the_setting_that_a_threshold_names_exists() -> None:
    settings = {each.setting for each in (*RAW_THRESHOLDS, *MASKED_THRESHOLDS)}
    environment = dict.fromkeys(settings, "7")

    tuning = Tuning.from_environment(environment)

    assert {
        tuning.warn_rejected_percent,
        tuning.warn_unparsed_version_percent,
        tuning.warn_redelivered_percent,
        tuning.warn_oldest_age_seconds,
    } == {7}
