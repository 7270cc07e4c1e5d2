"""The contract: whatever loads is what was sent, and nothing else loads."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fetch_mask_assets.pipeline.contract.login_event import LoginEvent, decode_login_event, repeats
from fetch_mask_assets.pipeline.contract.rejection import Reason, Rejection
from fetch_mask_assets_tests.masking.test_canonical import NOT_IPS
from fetch_mask_assets_tests.support.factories import (
    body,
    body_with_extra,
    body_without,
    members,
)

REQUIRED = ("user_id", "app_version", "device_type", "ip", "device_id")
CLEAR = ("user_id", "app_version", "device_type", "locale")
ALL = (*REQUIRED, "locale")

# In characters; an IP has none of its own, since no address has as many as 45.
LIMITS = {"user_id": 128, "app_version": 256, "device_type": 32, "locale": 32, "device_id": 128}


def _loaded(text: str) -> LoginEvent:
    decoded = decode_login_event(text)
    assert isinstance(decoded, LoginEvent)
    return decoded


def test_the_ordinary_event_loads() -> None:
    actual = decode_login_event(body())

    values = {
        "user_id": "u-1",
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": "192.0.2.17",
        "locale": "en_US",
        "device_id": "593-47-5928",
    }
    expected = LoginEvent(values, extra_fields=0)
    assert expected == actual


def test_an_event_does_not_show_its_values() -> None:
    event = _loaded(body())

    assert not [value for value in event.values.values() if str(value) in repr(event)]


def test_the_order_of_keys_and_white_space_around_them_mean_nothing() -> None:
    reordered = "\n\t " + json.dumps(dict(reversed(members().items())), indent=4) + " \r\n"

    assert decode_login_event(reordered) == decode_login_event(body())


def test_extra_fields_are_ignored_and_counted() -> None:
    extras: dict[str, object] = {
        "email": None,
        "IP": 5,
        "user_id ": [],
        "": {},
        "nested": {"ip": "192.0.2.99"},
    }

    actual = _loaded(body(**extras))

    assert _loaded(body())._replace(extra_fields=5) == actual


@pytest.mark.parametrize(
    ("text", "expected"),
    [(body(locale=None), None), (body_without("locale"), None), (body(locale="de_DE"), "de_DE")],
    ids=["null", "missing", "given"],
)
def test_a_locale_may_be_null_or_missing(text: str, expected: str | None) -> None:
    actual = _loaded(text).values["locale"]

    assert expected == actual


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Rejection(Reason.NOT_JSON)),
        (" \n", Rejection(Reason.NOT_JSON)),
        ("hello", Rejection(Reason.NOT_JSON)),
        (body().removesuffix("}") + ",}", Rejection(Reason.NOT_JSON)),
        (body() + body(), Rejection(Reason.NOT_JSON)),
        ("null", Rejection(Reason.NOT_AN_OBJECT)),
        (f"[{body()}]", Rejection(Reason.NOT_AN_OBJECT)),
        ("17", Rejection(Reason.NOT_AN_OBJECT)),
        (json.dumps(body()), Rejection(Reason.NOT_AN_OBJECT)),
        ("{}", Rejection(Reason.MISSING, "user_id")),
        ('{"foo": "oops_wrong_msg_type", "bar": "123"}', Rejection(Reason.MISSING, "user_id")),
        (json.dumps({"login": members()}), Rejection(Reason.MISSING, "user_id")),
        (
            json.dumps({name.upper(): value for name, value in members().items()}),
            Rejection(Reason.MISSING, "user_id"),
        ),
        (body_with_extra('1, "ip": "192.0.2.18"'), Rejection(Reason.DUPLICATE_KEY)),
        (body_with_extra('1, "i\\u0070": "192.0.2.17"'), Rejection(Reason.DUPLICATE_KEY)),
        (body_with_extra('1, "extra": 1'), Rejection(Reason.DUPLICATE_KEY)),
        (body_with_extra("NaN"), Rejection(Reason.NOT_JSON)),
        (body_with_extra("[-Infinity]"), Rejection(Reason.NOT_JSON)),
        (body_with_extra("1e999"), Rejection(Reason.NUMBER_OUT_OF_RANGE)),
        (body_with_extra("9" * 5_000), Rejection(Reason.NUMBER_OUT_OF_RANGE)),
        (body_with_extra("[" * 1_200 + "]" * 1_200), Rejection(Reason.NESTED_TOO_DEEP)),
        (body_with_extra("[" * 30_000 + "]" * 30_000), Rejection(Reason.NESTED_TOO_DEEP)),
        (body_with_extra("[" * 100_000 + "]" * 100_000), Rejection(Reason.BODY_TOO_LONG)),
        (body(extra="x" * 2**20), Rejection(Reason.BODY_TOO_LONG)),
        (body(user_id="x" * 10**6), Rejection(Reason.BODY_TOO_LONG)),
        (
            body(**{f"key {number}": number for number in range(100_000)}),
            Rejection(Reason.BODY_TOO_LONG),
        ),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_a_body_that_is_no_login_event_is_rejected(text: str, expected: Rejection) -> None:
    actual = decode_login_event(text)

    assert expected == actual


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_that_is_missing_is_rejected(name: str) -> None:
    actual = decode_login_event(body_without(name))

    assert Rejection(Reason.MISSING, name) == actual


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_that_is_null_is_rejected(name: str) -> None:
    actual = decode_login_event(body(**{name: None}))

    assert Rejection(Reason.NULL, name) == actual


@pytest.mark.parametrize("blank", ["", " ", "\t\r\n", "\u00a0", "\u2003\u3000", " " * 32])
@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_that_is_empty_or_blank_is_rejected(name: str, blank: str) -> None:
    actual = decode_login_event(body(**{name: blank}))

    assert Rejection(Reason.BLANK, name) == actual


@pytest.mark.parametrize("value", [0, 1, 3232235777, 1.5, True, False, [], ["192.0.2.1"], {}])
@pytest.mark.parametrize("name", ALL)
def test_a_field_that_is_not_a_text_is_rejected(name: str, value: object) -> None:
    actual = decode_login_event(body(**{name: value}))

    assert Rejection(Reason.WRONG_TYPE, name) == actual


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_a_field_loads_whole_at_its_limit(name: str, limit: int) -> None:
    actual = _loaded(body(**{name: "x" * limit})).values[name]

    assert "x" * limit == actual


@pytest.mark.parametrize("over", [1, 20_000], ids=["one over", "far over"])
@pytest.mark.parametrize(("name", "limit"), [*LIMITS.items(), ("ip", 45)])
def test_a_field_over_its_limit_is_rejected(name: str, limit: int, over: int) -> None:
    actual = decode_login_event(body(**{name: "x" * (limit + over)}))

    assert Rejection(Reason.TOO_LONG, name) == actual


@pytest.mark.parametrize(
    ("name", "limit"), [(name, limit) for name, limit in LIMITS.items() if name in CLEAR]
)
def test_a_limit_counts_characters_as_postgres_does(name: str, limit: int) -> None:
    actual = _loaded(body(**{name: "😀" * limit})).values[name]

    assert "😀" * limit == actual


@pytest.mark.parametrize(
    ("device_id", "loads"),
    [("é" * 64, True), ("é" * 64 + "x", False), ("😀" * 32, True), ("😀" * 33, False)],
)
def test_a_device_id_must_also_fit_its_token(device_id: str, *, loads: bool) -> None:
    actual = decode_login_event(body(device_id=device_id))

    assert loads == isinstance(actual, LoginEvent)
    assert loads or Rejection(Reason.TOO_LONG, "device_id") == actual


_CONTROLS = [
    chr(point) for point in (*range(0x20), *range(0x7F, 0xA0)) if chr(point) not in "\t\n\r"
]


@pytest.mark.parametrize("name", ALL)
def test_a_control_character_in_a_field_is_rejected(name: str) -> None:
    texts = [text for one in _CONTROLS for text in (f"a{one}b", f"ab{one}", f"{one}ab")]

    actual = {decode_login_event(body(**{name: text})) for text in texts}

    assert {Rejection(Reason.CONTROL_CHARACTER, name)} == actual


@pytest.mark.parametrize("text", ["\ud800", "ab\udfff", "\udc00\ud800", "\udbffx"])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "raw"])
def test_a_lone_surrogate_in_a_field_is_rejected(name: str, text: str, *, ascii_only: bool) -> None:
    message = json.dumps(members(**{name: text}), ensure_ascii=ascii_only)

    actual = decode_login_event(message)

    assert Rejection(Reason.NOT_UNICODE, name) == actual


def test_a_pair_of_surrogates_is_a_character() -> None:
    actual = _loaded(body().replace("u-1", "\\ud83d\\ude00")).values["user_id"]

    assert actual == "😀"


@pytest.mark.parametrize("text", [text for text in NOT_IPS if text.strip()])
def test_what_is_not_an_ip_is_rejected(text: str) -> None:
    actual = decode_login_event(body(ip=text))

    assert Rejection(Reason.NOT_AN_IP, "ip") == actual


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "10.0.0.1",
        "0.0.0.0",  # noqa: S104 (an address like any other)
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "2001:0DB8:0000:0000:0000:0000:0000:0007",
        "::ffff:199.172.111.135",
        "0000:0000:0000:0000:0000:ffff:199.172.111.135",
    ],
)
def test_every_address_loads_as_it_came(ip: str) -> None:
    actual = _loaded(body(ip=ip)).values["ip"]

    assert ip == actual


@pytest.mark.parametrize(
    "device_id",
    [
        "1",
        "593-47-5928",
        "6f1c1a2e-53c5-4f4e-9a52-0c8b1f0c6a11",
        "deadbeef" * 8,
        "x" * 128,
        " 593 ",
        "device_id",
        "None",
        "gerät",
    ],
)
def test_a_device_id_of_any_shape_loads_as_it_came(device_id: str) -> None:
    actual = _loaded(body(device_id=device_id)).values["device_id"]

    assert device_id == actual


@pytest.mark.parametrize(
    "version", ["2", "2.3", "02.3.0", "2.3.0-beta", "v2", "2..0", "99999999999.0.0", "none"]
)
def test_a_login_is_never_lost_for_its_version(version: str) -> None:
    actual = _loaded(body(app_version=version)).values["app_version"]

    assert version == actual


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE x; --",
        '"quoted"',
        "a\tb",
        "a\nb\r\nc",
        "\\.",
        "\\N",
        "\\",
        "\\\\n",
        "a\u2028b",
        "\u200f\u202e",
        "\U0010ffff",
        "NULL",
        "{}",
        " padded ",
        "%s %(x)s {0}",
        "<script>",
    ],
)
@pytest.mark.parametrize("name", [*CLEAR, "device_id"])
def test_a_text_loads_byte_for_byte(name: str, text: str) -> None:
    actual = _loaded(body(**{name: text})).values[name]

    assert actual is not None
    assert text.encode() == actual.encode()


@pytest.mark.parametrize("masked", ["ip", "device_id"])
@pytest.mark.parametrize("clear", CLEAR)
@pytest.mark.parametrize(
    "around", ["{}", "<{}>", "{}\n", "x{}"], ids=["alone", "inside", "first", "last"]
)
def test_a_clear_field_that_repeats_a_masked_value_is_rejected(
    clear: str, masked: str, around: str
) -> None:
    actual = decode_login_event(body(**{clear: around.format(members()[masked])}))

    assert Rejection(Reason.REPEATS_MASKED_VALUE, clear) == actual


@pytest.mark.parametrize(
    ("ip", "user_id"),
    [
        ("::ffff:192.0.2.17", "192.0.2.17"),
        ("192.0.2.17", "::ffff:c000:211"),
        ("2001:0DB8:0:0:0:0:0:7", "2001:db8::7"),
        ("2001:db8::7", "2001:DB8::7"),
    ],
)
def test_a_clear_field_that_is_another_spelling_of_the_ip_is_rejected(
    ip: str, user_id: str
) -> None:
    actual = decode_login_event(body(ip=ip, user_id=user_id))

    assert Rejection(Reason.REPEATS_MASKED_VALUE, "user_id") == actual


@pytest.mark.parametrize(
    ("clear", "masked", "expected"),
    [
        (None, "593-47-5928", False),
        ("593-47-5928", "593-47-5928", True),
        ("a 593-47-5928 b", "593-47-5928", True),
        ("593-47-592", "593-47-5928", False),
        ("1", "1", True),
        ("2.1.0", "1", False),
        ("12345", "12345", True),
        ("1-12345", "12345", False),
        ("1-123456", "123456", True),
    ],
)
def test_a_short_value_inside_another_is_chance(
    clear: str | None, masked: str, *, expected: bool
) -> None:
    actual = repeats(clear, masked)

    assert expected == actual


@pytest.mark.parametrize(
    "broken",
    [
        lambda canary: canary,
        lambda canary: f'["{canary}"]',
        lambda canary: f'{{"{canary}": 1}}',
        lambda canary: f'{{"{canary}": 1, "{canary}": 2}}',
        lambda canary: f'{{"{canary}": {"9" * 5_000}}}',
        lambda canary: body(ip=canary),
        lambda canary: body(ip=[canary]),
        lambda canary: body(user_id={canary: canary}),
        lambda canary: body(device_type=canary * 10),
        lambda canary: body(device_id=canary + "\0"),
        lambda canary: body(device_id=canary + "\ud800"),
        lambda canary: body(device_id=canary, user_id=canary),
        lambda canary: body(device_id=canary * 20),
    ],
)
def test_no_rejection_shows_anything_of_the_body(broken: Callable[[str], str]) -> None:
    actual = decode_login_event(broken("canary-77"))

    assert isinstance(actual, Rejection)
    assert "canary" not in f"{actual!r} {actual}"


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters()))
@example(text="\ud800")
@example(text='{"user_id":' * 5_000)
def test_any_text_is_an_event_or_a_rejection(text: str) -> None:
    assert isinstance(decode_login_event(text), Rejection)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["192.0.2.1", "::1", "2.3.0", "\0", "\ud800", "x" * 33, "x" * 129]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(ALL) | st.text(), _JSON), top=_JSON)
def test_any_json_is_a_rejection_or_the_very_values_that_were_sent(
    changes: dict[str, object], top: object
) -> None:
    sent = members() | changes

    decoded = decode_login_event(json.dumps(sent))

    assert isinstance(decode_login_event(json.dumps(top)), Rejection)
    if isinstance(decoded, LoginEvent):
        assert [sent[name] for name in ALL] == [decoded.values[name] for name in ALL]
        assert decoded.extra_fields == len(sent) - 6


_TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\t\n\r"), min_size=1
)


@settings(max_examples=100, deadline=None)
@given(
    user_id=_TEXT.filter(str.strip),
    locale=st.none() | _TEXT.filter(lambda text: len(text) <= 32),
    ip=st.ip_addresses().map(str),
    device_id=st.from_regex(r"\A[0-9a-f]{32}\Z"),
)
def test_whatever_keeps_the_contract_loads_as_it_was_sent(
    user_id: str, locale: str | None, ip: str, device_id: str
) -> None:
    text = body(user_id=user_id[:128].strip() or "x", locale=locale, ip=ip, device_id=device_id)
    sent = json.loads(text)

    actual = _loaded(text)

    assert LoginEvent(sent, extra_fields=0) == actual


@pytest.mark.parametrize(
    ("user_id", "changes"),
    [
        ("login-203.0.113.77", {"ip": "::ffff:203.0.113.77"}),
        ("z-2001:DB8::ABCD", {"ip": "2001:db8::abcd"}),
        ("abcdef-123456", {"device_id": "ABCDEF-123456"}),
        ("593-47-2222", {"device_id": " 593-47-2222 "}),
        ("\u00e9clair-123", {"device_id": "e\u0301clair-123"}),
    ],
)
def test_a_masked_value_in_other_dress_is_no_user_id(user_id: str, changes: dict[str, str]) -> None:
    event = {
        "user_id": user_id,
        "app_version": "2.3.0",
        "device_type": "ios",
        "ip": "198.51.100.7",
        "device_id": "111-22-3333",
    }

    assert decode_login_event(json.dumps(event | changes)) == Rejection(
        Reason.REPEATS_MASKED_VALUE, "user_id"
    )
