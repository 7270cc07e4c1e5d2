"""Subjects of an erasure: their validation, and the search for them in message bodies."""

from __future__ import annotations

import hashlib
import json

import pytest

from fetch_mask_assets.keys.keyset import open_keyring
from fetch_mask_assets.operations.erasure.subjects import (
    SubjectError,
    Subjects,
    parse_subjects,
)
from fetch_mask_assets_tests.support.factories import (
    DEVICE_ID,
    IP,
    body,
    keyring,
    new_keysets,
    rotated,
    shown,
)


def _matches(kind: str, value: str, text: str) -> bool:
    return parse_subjects(kind, [value]).matcher()(text)


@pytest.mark.parametrize(
    "text",
    [
        body(),
        body(ip="::ffff:192.0.2.17"),
        body(ip="::FFFF:c000:211"),
        body(ip=" 192.0.2.17\n"),
        body(ip="192.0.2.17:8080"),
        body(ip="192.0.2.17%eth0"),
        body(ip=["192.0.2.17"]),
        body(user_id="at 192.0.2.17, again"),
        json.dumps({"192.0.2.17": 1}),
        json.dumps({"Message": body()}),
        json.dumps({"Message": json.dumps({"Message": body()})}),
        json.dumps(["x", {"a": {"b": ["192.0.2.17"]}}]),
        '{"ip": "192.0.2.17", "ip": "198.51.100.1"}',
        '{"ip": "192\\u002e0.2.17"}',
        '{"ip": "192.0.2.17',
        "ip=192.0.2.17;",
        "192\\u002e0.2.17 and more",
        "[" * 100_000 + "192.0.2.17",
        "addr192.0.2.17port",
    ],
)
def test_an_ip_is_found_however_it_is_written(text: str) -> None:
    assert _matches("ip", IP, text)


@pytest.mark.parametrize(
    "text",
    [
        body(ip="192.0.2.170"),
        body(ip="192.0.2.1"),
        body(ip="1192.0.2.17"),
        "192.0.2.170 is not JSON",
        "not 1192.0.2.17",
        body(ip="::192.0.2.18"),
        "",
        "{}",
        "::::",
        "12:30:17",
    ],
)
def test_another_ip_does_not_match(text: str) -> None:
    assert not _matches("ip", IP, text)


@pytest.mark.parametrize(
    "text",
    [
        body(ip="2001:db8::1"),
        body(ip="2001:0DB8:0:0:0:0:0:1"),
        "ip:2001:db8::1,",
        "[2001:db8::1]:443",
        "at 2001:db8::1.",
        "2001:db8::1%eth0",
    ],
)
def test_an_ipv6_address_is_found_in_any_spelling(text: str) -> None:
    assert _matches("ip", "2001:DB8::0001", text)


def test_another_ipv6_address_does_not_match() -> None:
    assert not _matches("ip", "2001:db8::1", body(ip="2001:db8::1:443"))
    assert not _matches("ip", "2001:db8::1", body(ip="2001:db8::11"))


@pytest.mark.parametrize(
    "text",
    [
        body(),
        body(device_id=f" {DEVICE_ID} "),
        body(locale=DEVICE_ID),
        body(extra=f"device {DEVICE_ID}."),
        json.dumps({"device_id": DEVICE_ID}).replace("593", "\\u0035\\u00393"),
        json.dumps({DEVICE_ID: 1}),
        f"cut off {DEVICE_ID}",
        f"deviceid{DEVICE_ID}x",
        '{"device_id": "593-47\\u002d5928',
    ],
)
def test_a_device_id_is_found_in_any_field_and_in_any_text(text: str) -> None:
    assert _matches("device_id", DEVICE_ID, text)


def test_a_device_id_is_found_as_a_number_of_any_length() -> None:
    assert _matches("device_id", "593475928", '{"device_id": 593475928}')
    assert _matches("device_id", "7" * 100, f'{{"device_id": {"7" * 100}}}')


def test_a_device_id_beyond_ascii_is_found_behind_its_escapes() -> None:
    device_id = "gerät-\U0001f600-1"

    assert _matches("device_id", device_id, json.dumps({"x": device_id}))
    assert _matches("device_id", device_id, json.dumps({"x": device_id})[:-1])
    assert _matches("device_id", 'a"b/c\\d', json.dumps({"x": 'a"b/c\\d'})[:-1])


def test_a_part_of_another_device_id_does_not_match() -> None:
    assert not _matches("device_id", "device-1", body(device_id="device-10"))
    assert not _matches("device_id", "12", "not JSON: 123")
    assert not _matches("device_id", DEVICE_ID.upper() + "X", body())


@pytest.mark.parametrize(
    "text",
    [
        body(),
        json.dumps({"userId": "u-1"}),
        json.dumps({"user": {"id": "u-1"}}),
        json.dumps({"Message": body()}),
        '{"user_id": "u-1", "user_id": "u-2"}',
        "u-1 did not log in",
    ],
)
def test_a_user_is_found_under_any_other_key(text: str) -> None:
    assert _matches("user", "u-1", text)


def test_another_field_with_the_same_text_does_not_match_the_user() -> None:
    assert not _matches("user", "2.3.0", body())
    assert not _matches("user", "android", body(user_id="other"))
    assert not _matches("user", "u-1", body(user_id="u-10"))
    assert _matches("user", "17", '{"user_id": 17}')


def test_one_of_several_values_is_enough() -> None:
    subjects = parse_subjects("ip", ["198.51.100.1", "", IP])

    assert subjects.matcher()(body())
    assert not subjects.matcher()(body(ip="198.51.100.2"))


def test_values_are_canonical_and_distinct() -> None:
    subjects = parse_subjects("ip", ["192.0.2.17\r\n", "", "::ffff:192.0.2.17", " 192.0.2.17 "])

    assert subjects.values == ("192.0.2.17",)
    assert parse_subjects("device_id", [" a\n", "a"]).values == (" a", "a")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("ip", "canary"),
        ("ip", "010.1.1.1"),
        ("device_id", "canary" * 30),
        ("device_id", "canary\udc80"),
        ("user", "canary" * 30),
        ("user", "canary\0"),
    ],
)
def test_an_invalid_value_is_refused_by_its_line_without_the_value(kind: str, value: str) -> None:
    with pytest.raises(SubjectError, match=r"^line 2 is not a") as caught:
        parse_subjects(kind, ["192.0.2.1", value])

    assert "canary" not in shown(caught.value)
    assert "010" not in shown(caught.value)


@pytest.mark.parametrize("lines", [[], [""], ["\n", "  "]])
def test_an_empty_input_is_refused(lines: list[str]) -> None:
    with pytest.raises(SubjectError, match="no values were given"):
        parse_subjects("ip", lines)


def test_the_tokens_are_under_every_key_with_the_md5_digests() -> None:
    keysets = new_keysets()
    before = open_keyring(keysets)
    after = open_keyring(keysets | {"ip": rotated(keysets["ip"], "ip")})
    subjects = parse_subjects("ip", ["::ffff:192.0.2.17"])

    digest = hashlib.md5(b"192.0.2.17", usedforsecurity=False).hexdigest()
    old = {digest, digest.upper()}

    assert set(subjects.tokens(before)) == {before.masker("ip").mask(IP), *old}
    assert set(subjects.tokens(after)) == {
        before.masker("ip").mask(IP),
        after.masker("ip").mask(IP),
        *old,
    }


def test_users_have_no_tokens() -> None:
    assert parse_subjects("user", ["u-1"]).tokens(keyring()) == ()


def test_the_repr_has_no_values() -> None:
    assert "canary" not in repr(Subjects("device_id", ("canary",)))
