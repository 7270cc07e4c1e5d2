"""The masked fields, as data."""

from __future__ import annotations

from fetch_mask_assets.masking.fields import DEVICE_ID, IP, MASKED_FIELDS
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS
from fetch_mask_assets.pipeline.contract.login_event import CLEAR_FIELDS, FIELDS


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

    assert masked | set(CLEAR_FIELDS) == set(FIELDS)
    assert masked.isdisjoint(CLEAR_FIELDS)
    assert {field.column for field in MASKED_FIELDS} < set(LOGIN_COLUMNS)


def test_a_value_comes_back_from_its_canonical_form() -> None:
    assert IP.original(IP.canonical("192.0.2.1")) == "192.0.2.1"
    assert DEVICE_ID.original(DEVICE_ID.canonical("593-47-5928")) == "593-47-5928"
