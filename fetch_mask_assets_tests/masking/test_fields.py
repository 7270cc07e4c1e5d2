"""The masked fields, as data."""

from __future__ import annotations

import pytest

from fetch_mask_assets.masking.canonical import MAX_TEXT_BYTES, TEXT
from fetch_mask_assets.masking.fields import (
    CLEAR_FIELDS,
    DEVICE_ID,
    FIELD_NAMES,
    FIELDS,
    IP,
    MASKED_FIELDS,
    MAX_TOKEN_LENGTH,
    MaskedField,
)
from fetch_mask_assets.masking.token import format_token
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


def test_a_column_has_the_type_that_its_field_needs() -> None:
    actual = {field.column: field.sql_type for field in FIELDS}

    assert actual == {
        "user_id": "varchar(128)",
        "device_type": "varchar(32)",
        "masked_ip": "varchar(256)",
        "masked_device_id": "varchar(256)",
        "locale": "varchar(32)",
        "app_version": "integer",
    }


def test_names_columns_and_words_of_fields_are_distinct() -> None:
    words = [word for each in MASKED_FIELDS for word in {each.singular, each.plural, each.label}]

    assert len(set(FIELD_NAMES)) == len({field.column for field in FIELDS}) == len(FIELDS)
    assert len(set(words)) == len(words)


def test_the_longest_token_of_each_field_fits_its_column() -> None:
    for field in MASKED_FIELDS:
        longest = field.form.to_bytes("x" * MAX_TEXT_BYTES) if field.form is TEXT else bytes(16)

        assert len(format_token(field, bytes(21) + longest)) <= MAX_TOKEN_LENGTH


@pytest.mark.parametrize("field", MASKED_FIELDS, ids=lambda field: field.name)
def test_the_example_of_a_form_can_be_masked(field: MaskedField) -> None:
    form = field.form
    form.check(form.example)

    assert form.to_text(form.to_bytes(form.example)) == form.example
    assert len(form.to_bytes(form.example)) == form.min_bytes
