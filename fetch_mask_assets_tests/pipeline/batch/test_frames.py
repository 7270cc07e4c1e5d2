"""A masked batch is line by line the raw one."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.siv_columns import SivColumns
from fetch_mask_assets.pipeline.batch.frames import (
    LOGIN_COLUMNS,
    MASKED_SCHEMA,
    RAW_SCHEMA,
    mask_batch,
    reason_counts,
    rejected_count,
)
from fetch_mask_assets_tests.support.factories import (
    SENT_AT,
    body,
    body_without,
    keyring,
    raw_batch,
)


class _RecordingCipher:
    """A cipher over columns that counts the values which it encrypts."""

    def __init__(self, cipher: SivColumns) -> None:
        self._cipher = cipher
        self.asked: Counter[bytes] = Counter()

    def encrypt(self, values: Sequence[bytes]) -> list[bytes]:
        self.asked.update(values)
        return self._cipher.encrypt(values)


def _recording() -> tuple[Keyring, dict[str, _RecordingCipher]]:
    """The keyring with recording ciphers, and these by the field's name."""
    ciphers, maskers = {}, []
    for masker in keyring().maskers:
        [(key_id, cipher)] = masker._columns.items()  # noqa: SLF001 (a double in its place)
        ciphers[masker.field.name] = _RecordingCipher(cipher)
        columns: Any = {key_id: ciphers[masker.field.name]}
        maskers.append(dataclasses.replace(masker, _columns=columns))
    return dataclasses.replace(keyring(), maskers=tuple(maskers)), ciphers


def _masked(*bodies: str) -> pl.DataFrame:
    return mask_batch(raw_batch(bodies), keyring())


def test_the_columns_of_the_frames_are_these() -> None:
    assert RAW_SCHEMA.names() == [
        "message_id",
        "sent_at",
        "receive_count",
        "body",
    ]
    assert LOGIN_COLUMNS == (
        "user_id",
        "device_type",
        "masked_ip",
        "masked_device_id",
        "locale",
        "app_version",
        "create_date",
    )


@pytest.mark.parametrize(
    "bodies",
    [[], [body()], ["x"], [body(), "x"], [body(locale=None)], [body(app_version="beta")]],
    ids=["empty", "good", "bad", "mixed", "all locales null", "all versions null"],
)
def test_a_masked_batch_has_exactly_its_schema(bodies: list[str]) -> None:
    actual = mask_batch(raw_batch(bodies), keyring()).schema

    assert list(MASKED_SCHEMA.items()) == list(actual.items())


def test_a_good_message_is_a_masked_login() -> None:
    actual = _masked(body(extra=1)).row(0, named=True)

    expected = {
        "message_id": "m0",
        "sent_at": SENT_AT,
        "receive_count": 1,
        "user_id": "u-1",
        "device_type": "android",
        "masked_ip": keyring().masker("ip").mask("192.0.2.17"),
        "masked_device_id": keyring().masker("device_id").mask("593-47-5928"),
        "locale": "en_US",
        "app_version": 2_003_000,
        "create_date": date(2024, 2, 28),
        "app_version_text": "2.3.0",
        "extra_fields": 1,
        "reason": None,
        "field": None,
        "sealed_body": None,
    }
    assert expected == actual


def test_a_bad_message_is_a_reason_and_its_sealed_body() -> None:
    text = body(ip="canary")

    actual = _masked(text).row(0, named=True)

    sealed = actual.pop("sealed_body")
    expected = {
        **dict.fromkeys(MASKED_SCHEMA.names()[:-1]),
        "message_id": "m0",
        "sent_at": SENT_AT,
        "receive_count": 1,
        "reason": "not_an_ip",
        "field": "ip",
    }
    assert expected == actual
    assert keyring().sealer.open(sealed, "m0") == text


def test_a_body_that_breaks_no_fields_rule_names_no_field() -> None:
    actual = _masked("", "[]").select("reason", "field").rows()

    assert actual == [("not_json", None), ("not_an_object", None)]


def test_each_sealed_body_opens_for_its_own_message_only() -> None:
    texts = ["", "canary", "{}", "null", "x" * 2**20, '"\\ud800"']

    masked = _masked(*texts)

    opened = [
        keyring().sealer.open(sealed, message_id)
        for sealed, message_id in masked.select("sealed_body", "message_id").rows()
    ]
    assert texts == opened


def test_nine_bad_of_ten_leave_the_good_one_loaded() -> None:
    bad = ["", "null", "{", "[]", body(ip="1.2.3"), body(user_id=None), body(device_id=7), "x", "5"]

    actual = _masked(*bad[:4], body(user_id="good"), *bad[4:])

    assert actual["user_id"].to_list() == [None] * 4 + ["good"] + [None] * 5
    assert rejected_count(actual) == 9


def test_ten_bad_of_ten_are_ten_lines_without_a_token() -> None:
    actual = _masked(*["{}"] * 10)

    assert actual.height == rejected_count(actual) == 10
    assert actual.select("masked_ip", "masked_device_id").null_count().row(0) == (10, 10)


def test_an_empty_batch_is_masked_to_an_empty_one() -> None:
    actual = _masked()

    assert actual.height == rejected_count(actual) == 0
    assert reason_counts(actual) == {}


def test_a_message_that_came_twice_is_two_lines() -> None:
    raw = raw_batch([body(), "x", body()], ids=["same", "other", "same"])

    masked = mask_batch(raw, keyring())

    assert masked["message_id"].to_list() == ["same", "other", "same"]


def test_the_same_content_under_two_message_ids_is_two_logins_with_equal_tokens() -> None:
    actual = _masked(body(), body())

    assert actual["message_id"].to_list() == ["m0", "m1"]
    assert actual["masked_ip"].n_unique() == actual["masked_device_id"].n_unique() == 1


def test_an_ipv4_mapped_address_has_the_token_of_its_ipv4_in_the_batch() -> None:
    actual = _masked(body(ip="199.172.111.135"), body(ip="::ffff:199.172.111.135"))

    assert actual["masked_ip"].n_unique() == 1


@pytest.mark.parametrize(
    ("sent_at", "expected"),
    [
        (datetime(2024, 2, 29, 23, 59, 59, 999_000, UTC), date(2024, 2, 29)),
        (datetime(2024, 3, 1, 0, 0, 0, 0, UTC), date(2024, 3, 1)),
        (datetime(2023, 12, 31, 23, 59, 59, 999_000, UTC), date(2023, 12, 31)),
        (datetime(1970, 1, 1, 0, 0, 0, 0, UTC), date(1970, 1, 1)),
    ],
)
def test_the_day_of_a_login_is_the_utc_day_on_which_it_was_sent(
    sent_at: datetime, expected: date
) -> None:
    actual = mask_batch(raw_batch([body()], sent_at=sent_at), keyring())

    assert [expected] == actual["create_date"].to_list()
    assert [sent_at] == actual["sent_at"].to_list()


def test_a_version_without_a_number_loads_as_null_with_its_text() -> None:
    actual = _masked(body(app_version="2.3.0-beta"), body(app_version="2147.483.647"))

    assert actual.select("app_version", "app_version_text").rows() == [
        (None, "2.3.0-beta"),
        (2_147_483_647, "2147.483.647"),
    ]


def test_each_distinct_value_is_encrypted_once() -> None:
    ring, ciphers = _recording()
    logins = [
        body(ip=f"192.0.2.{number % 3}", device_id=f"device {number % 5}") for number in range(60)
    ]

    masked = mask_batch(raw_batch([*logins, "x", body(ip="bad"), "{}"]), ring)

    assert sorted(ciphers["ip"].asked.values()) == [1, 1, 1]
    assert sorted(ciphers["device_id"].asked.values()) == [1, 1, 1, 1, 1]
    assert masked["masked_ip"].drop_nulls().n_unique() == 3
    assert masked["masked_device_id"].drop_nulls().n_unique() == 5


def test_nothing_of_a_rejected_message_is_encrypted_as_a_token() -> None:
    ring, ciphers = _recording()

    mask_batch(raw_batch([body(device_id=None), body(device_id=""), body_without("ip")]), ring)

    assert [Counter(), Counter()] == [each.asked for each in ciphers.values()]


def test_reasons_are_counted_most_first_and_then_by_name() -> None:
    masked = _masked("x", body(), "{}", body(ip="1"), "", body(ip="2"), body(ip="3"), "[]")

    actual = list(reason_counts(masked).items())

    assert actual == [
        ("ip: not_an_ip", 3),
        ("not_json", 2),
        ("not_an_object", 1),
        ("user_id: missing", 1),
    ]


def test_the_masked_frame_holds_no_raw_value() -> None:
    masked = _masked(body(), body(ip="bad 192.0.2.17"), body(user_id="593-47-5928"), "192.0.2.17")

    actual = repr(masked.rows())

    assert "192.0.2.17" not in actual
    assert "593-47-5928" not in actual


_BODIES = st.sampled_from(
    ["", "{}", "null", "[1]", body(), body(ip="::1"), body(ip="x"), body(app_version="beta")]
) | st.text(max_size=10)


@settings(max_examples=60, deadline=None)
@given(bodies=st.lists(_BODIES, max_size=12))
def test_a_masked_batch_is_as_high_as_the_raw_one_and_in_its_order(bodies: list[str]) -> None:
    raw = raw_batch(bodies)

    masked = mask_batch(raw, keyring())

    is_login = masked["masked_ip"].is_not_null()
    assert masked.height == len(bodies)
    assert masked["message_id"].to_list() == raw["message_id"].to_list()
    assert is_login.to_list() == masked["reason"].is_null().to_list()
    assert is_login.to_list() == masked["sealed_body"].is_null().to_list()
    assert rejected_count(masked) == sum(reason_counts(masked).values())
