"""The masked fields, as data."""

from __future__ import annotations

from fetch_mask_assets.masking.fields import (
    CLEAR_FIELDS,
    DEVICE_ID,
    FIELD_NAMES,
    IP,
    MASKED_FIELDS,
)
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS


def test_the_ip_and_the_device_id_are_masked() -> None:
    actual = [field.name for field in MASKED_FIELDS]

    assert actual == ["ip", "device_id"]


def test_each_has_a_column_a_prefix_and_associated_data_of_its_own() -> None:
    actual = [(each.column, each.token_prefix, each.associated_data) for each in MASKED_FIELDS]

    assert actual == [
        ("masked_ip", "ip:", b"user_logins/ip"),
        ("masked_device_id", "device_id:", b"user_logins/device_id"),
    ]


def test_every_field_is_either_masked_or_clear() -> None:
    masked = {field.name for field in MASKED_FIELDS}
    clear = {field.name for field in CLEAR_FIELDS}

    assert masked | clear == set(FIELD_NAMES)
    assert masked.isdisjoint(clear)
    assert {field.column for field in MASKED_FIELDS} < set(LOGIN_COLUMNS)


def test_a_value_comes_back_from_its_canonical_form() -> None:
    assert IP.form.to_text(IP.form.to_bytes("192.0.2.1")) == "192.0.2.1"
    assert DEVICE_ID.form.to_text(DEVICE_ID.form.to_bytes("593-47-5928")) == "593-47-5928"
