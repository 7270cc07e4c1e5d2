"""A batch is decoded as each of its bodies alone, whether over columns or one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.masking.fields import CLEAR_FIELDS, FIELD_NAMES, MASKED_FIELDS
from fetch_mask_assets.pipeline.contract import decoding, ordinary_bodies, repeated_values
from fetch_mask_assets.pipeline.contract.decoding import DECODED_SCHEMA, decode_bodies
from fetch_mask_assets.pipeline.contract.login_event import repeats
from fetch_mask_assets.pipeline.contract.ordinary_bodies import (
    MAX_KEY_ORDERS,
    MAX_KEYS,
    ROW,
    ordinary_events,
)
from fetch_mask_assets.pipeline.contract.repeated_values import may_repeat
from fetch_mask_assets_tests.fuzz.properties import bodies_are_decoded_as_each_alone
from fetch_mask_assets_tests.masking.test_canonical import NOT_IPS
from fetch_mask_assets_tests.support.factories import (
    body,
    body_with_extra,
    body_without,
    members,
)

LIMITS = {"user_id": 128, "app_version": 256, "device_type": 32, "locale": 32, "device_id": 128}
NOT_TEXTS: tuple[object, ...] = (17, 1.5, True, [], {})
REVERSED = json.dumps(dict(reversed(members().items())))


def raw(**changes: object) -> str:
    """A login event in UTF-8, without escapes for what is not ASCII."""
    return json.dumps(members(**changes), ensure_ascii=False)


ORDINARY = [
    body(),
    REVERSED,
    body(locale=None),
    body_without("locale"),
    json.dumps(members(), separators=(",", ":")),
    "\n\t " + json.dumps(members(), indent=4) + " \r\n",
    raw(user_id="Jörg 😀", device_type="Jürgen's"),
    raw(device_id="gerät"),
    *(body(**{name: "x" * limit}) for name, limit in LIMITS.items()),
    *(raw(**{name: "😀" * limit}) for name, limit in LIMITS.items() if name != "device_id"),
    raw(device_id="😀" * 32),
    *(body(ip=ip) for ip in ("::", "::1", "2001:DB8::7", "::ffff:192.0.2.1", "1:2:3:4:5:6:7:8")),
    body(app_version="1.2.3.4"),
    body(user_id="google:1234"),
    body(user_id="a::b"),
    body(device_id="1", app_version="2.1.0"),
    body(locale=""),
    body(user_id=" padded "),
    body(event="login", attempt=1, ratio=-1.5, first=True, parent=None),
    body_with_extra('"' + "x" * 3_000 + '"'),
]
"""Bodies that are decoded over columns."""

UNUSUAL = [
    "",
    "null",
    "{}",
    "[]",
    "x",
    body() + body(),
    body() + ",",
    body() + "\0",
    "\ufeff" + body(),
    "\u00a0" + body(),
    "\x0b" + body(),
    body().replace(":", ":\u2003"),
    body().replace(",", ",,"),
    body().replace(",", ";"),
    body().replace('"', "'"),
    body().removesuffix("}"),
    body().removesuffix("}") + ",}",
    f"[{body()}]",
    " " * 66_000 + body(),
    body_with_extra('"' + "x" * 60_000 + '"'),
    *(body_without(name) for name in FIELD_NAMES if name != "locale"),
    *(body(**{name: None}) for name in FIELD_NAMES if name != "locale"),
    *(
        raw(**{name: blank})
        for name in FIELD_NAMES
        for blank in ("", " ", "\u00a0", "\u2003\u3000", "\u1680", "\u2028")
    ),
    *(body(**{name: value}) for name in FIELD_NAMES for value in NOT_TEXTS),
    *(body(**{name: "x" * (limit + 1)}) for name, limit in LIMITS.items()),
    *(raw(**{name: "😀" * (limit + 1)}) for name, limit in LIMITS.items()),
    raw(device_id="é" * 64 + "x"),
    *(body(ip=ip) for ip in NOT_IPS),
    *(
        body().replace("u-1", f"u{chr(point)}1")
        for point in (*range(0x20), *range(0x7F, 0xA1), 0xAD, 0x2028, 0xFEFF, 0xFFFD)
    ),
    *(
        body().replace("u-1", escape)
        for escape in ("\\u0075", '\\"', "\\\\", "\\", "\\ud800", "\\u0000", "\\x", "\\/")
    ),
    body().replace("user_id", "user\\u005fid"),
    body_with_extra('1, "ip": "192.0.2.18"'),
    body_with_extra('1, "extra": 1'),
    body_with_extra('1, "": 1, "a.c": 1'),
    body_with_extra('1, "(": 1'),
    body_with_extra('1, "ip ": "192.0.2.18"'),
    *(
        body_with_extra(text)
        for text in ("NaN", "-Infinity", "1e999", "9" * 401, "01", "1.", ".5", "-", "+1", "1e5")
    ),
    *(
        body_with_extra(text)
        for text in ("[1]", "{}", '{"ip": "::1"}', "nul", "True", '"', '"\x01"')
    ),
    body(**{f"key_{number}": number for number in range(MAX_KEYS)}),
    *(
        raw(**{clear: text})
        for clear in ("user_id", "app_version", "device_type", "locale")
        for text in (
            "192.0.2.17",
            "<192.0.2.17>",
            "593-47-5928",
            "x593-47-5928\u3000",
            "\uff11\uff19\uff12.0.2.17",
            "::ffff:192.0.2.17",
            "::ffff:c000:211",
        )
    ),
    raw(user_id="DEVICE-17", device_id="device-17"),
    raw(user_id="x DEVICE-17", device_id=" device-17 "),
    raw(user_id="STRASSE-1", device_id="straße-1"),
    raw(user_id="2001:db8::7", ip="2001:0DB8:0:0:0:0:0:7"),
    raw(user_id="e\u0301-1234", device_id="é-1234"),
]


def _row_numbers(*bodies: str) -> list[int]:
    """The numbers of the bodies that are decoded over columns."""
    frame = pl.DataFrame({"body": pl.Series(bodies, dtype=pl.String)}).with_row_index(ROW)
    return sorted(ordinary_events(frame)[ROW])


@pytest.mark.parametrize("text", ORDINARY, ids=range(len(ORDINARY)))
def test_an_ordinary_body_is_decoded_over_columns_as_it_is_alone(text: str) -> None:
    assert _row_numbers(text) == [0]
    bodies_are_decoded_as_each_alone([text])


@pytest.mark.parametrize("text", UNUSUAL, ids=range(len(UNUSUAL)))
def test_another_body_beside_ordinary_ones_is_decoded_as_it_is_alone(text: str) -> None:
    bodies_are_decoded_as_each_alone([text, body(), REVERSED, body_without("locale")])


def test_a_mixed_batch_is_decoded_as_each_body_alone_and_in_its_order() -> None:
    bodies_are_decoded_as_each_alone(
        [each for pair in zip(ORDINARY, UNUSUAL, strict=False) for each in pair]
    )
    bodies_are_decoded_as_each_alone([*UNUSUAL, *ORDINARY])


def test_an_empty_batch_has_the_columns() -> None:
    assert decode_bodies(pl.Series([], dtype=pl.String)).schema == DECODED_SCHEMA


def test_the_most_frequent_orders_of_keys_are_decoded_over_columns() -> None:
    login = members(a=1, b=2)
    orders = [
        json.dumps(dict(list(login.items())[start:] + list(login.items())[:start]))
        for start in range(MAX_KEY_ORDERS + 1)
    ]
    bodies = [text for text in orders[:-1] for _ in range(40)] + orders[-1:]

    assert _row_numbers(*bodies) == list(range(40 * MAX_KEY_ORDERS))


def test_a_rare_order_of_keys_does_not_change_what_is_decoded() -> None:
    bodies_are_decoded_as_each_alone([*[body()] * 500, REVERSED, "x", *[body()] * 500])


_EDITS = st.sampled_from(
    [
        *"{}[]:,\"\\'\n\t\0\x7f\x85 01.e+-",
        "null",
        "true",
        "NaN",
        '""',
        '": "',
        '", "',
        "\\ud800",
        "\\u0041",
        "\u00a0",
        "\ufeff",
        "\u212a",
        "\u017f",
        "\u0130",
        "é",
        "😀",
        "192.0.2.17",
        "::ffff:",
        "593-47-5928",
        '"ip"',
        '"locale": null, ',
        "9" * 401,
    ]
)


@st.composite
def _edited(draw: st.DrawFn) -> str:
    """An ordinary body with a few pieces put in, or in the place of others."""
    text = draw(st.sampled_from(ORDINARY[:8]))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 4)))
        text = text[:start] + draw(_EDITS | st.characters()) + text[end:]
    return text


@settings(max_examples=200, deadline=None)
@given(bodies=st.lists(_edited(), min_size=1, max_size=8))
def test_bodies_that_are_nearly_ordinary_are_decoded_as_each_alone(bodies: list[str]) -> None:
    bodies_are_decoded_as_each_alone([*bodies, *ORDINARY[:3]])


_PIECES = st.sampled_from(
    [
        "a",
        "A",
        "ß",
        "ss",
        "\uff11",
        "1",
        ".",
        ":",
        "::",
        " ",
        "\n",
        "192.0.2.1",
        "ffff",
        "é",
        "e\u0301",
        "Σ",
        "x",
    ]
)
_TEXTS = st.lists(_PIECES | st.characters(exclude_categories=["Cs", "Cc"]), max_size=8).map("".join)


@settings(max_examples=500, deadline=None)
@given(
    clear=st.lists(_TEXTS, min_size=1, max_size=3),
    masked=_TEXTS.filter(str.strip),
    held=st.booleans(),
)
def test_no_repeated_value_is_overlooked_by_the_columns(
    clear: list[str], masked: str, *, held: bool
) -> None:
    texts = [f"{clear[0]}{masked}", *clear[1:]] if held else clear
    columns = {f"c{number}": [text] for number, text in enumerate(texts)} | {"masked": [masked]}

    [actual] = pl.DataFrame(columns).select(may_repeat(list(columns)[:-1], ["masked"])).to_series()

    assert actual or not any(repeats(text, masked) for text in texts)


def _patched(**values: object) -> Callable[[pytest.MonkeyPatch], None]:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        for name, value in values.items():
            patch.setattr(ordinary_bodies, name, value)

    return mutate


def _text(pattern: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Another pattern of what stands between quotation marks."""
    values = {
        name: value.replace(ordinary_bodies._TEXT, pattern)  # noqa: SLF001 (what is mutated)
        for name, value in ordinary_bodies._VALUES.items()  # noqa: SLF001 (what is mutated)
    }
    return _patched(_VALUES=values)


def _all_values(**changes: str) -> Callable[[pytest.MonkeyPatch], None]:
    return _patched(_VALUES=ordinary_bodies._VALUES | changes)  # noqa: SLF001 (what is mutated)


def _repeats(**values: object) -> Callable[[pytest.MonkeyPatch], None]:
    """Another search for repeated values."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        for name, value in values.items():
            patch.setattr(repeated_values, name, value)
        clear, masked = ([each.name for each in fields] for fields in (CLEAR_FIELDS, MASKED_FIELDS))
        patch.setattr(ordinary_bodies, "_MAY_REPEAT", repeated_values.may_repeat(clear, masked))

    return mutate


_FALSE = pl.lit(value=False)

MISTAKES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "escapes are texts": _text(r'[^"\x00-\x1f\x7f-\x{9f}]*'),
    "C0 is allowed": _text(r'[^"\\\x7f-\x{9f}]*'),
    "C1 is allowed": _text(r'[^"\\\x00-\x1f\x7f]*'),
    "DEL is allowed": _text(r'[^"\\\x00-\x1f\x{80}-\x{9f}]*'),
    "quotation marks are texts": _text(".*"),
    "white space of Unicode is white space": _patched(_SPACE=r"\s*"),
    "anything is a scalar": _patched(_SCALAR="[^,}]*"),
    "a number may have any length": _patched(_SCALAR=r"(?:\"x*\"|[0-9]+)"),
    "a required field may be null": _all_values(user_id='(?:"(?P<user_id>[^"\\\\]*)"|null)'),
    "no bounds": _patched(_IS_WITHIN_BOUNDS=pl.lit(value=True)),
    "no bounds but null": _patched(_IS_WITHIN_BOUNDS=pl.col("user_id").is_not_null()),
    "no forms": _patched(MASKED_FIELDS=()),
    "no repeats": _patched(_MAY_REPEAT=_FALSE),
    "no address in another spelling": _repeats(_LIKE_ADDRESS=r"\A\z."),
    "what is not ASCII is as if it were": _repeats(_is_foreign=lambda _texts: _FALSE),
    "no held value": _repeats(_may_hold=lambda _texts, _value: _FALSE),
    "doubtful rows are good": _patched(repeating_field=lambda _event: None),
    "any length": _patched(MAX_ORDINARY_BYTES=10**6),
    "any key is a pattern": _patched(_PLAIN_NAME=re.compile(".*")),
    "extra fields are not counted": _patched(FIELD_NAMES=(*FIELD_NAMES, "extra", "event")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_columns_is_seen_beside_the_bodies_alone(
    mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    MISTAKES[mistake](monkeypatch)

    with pytest.raises((AssertionError, pl.exceptions.PolarsError)):  # noqa: PT012 (one batch each)
        for text in (*UNUSUAL, *ORDINARY):
            bodies_are_decoded_as_each_alone([text, body(), body_with_extra("1")])


def test_a_batch_is_decoded_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = pl.Series([*ORDINARY, "x", "{}", body(ip="bad")] * 2)
    whole = decode_bodies(bodies)

    monkeypatch.setattr(decoding, "BODIES_IN_PART", 7)

    assert decode_bodies(bodies).equals(whole)
    assert whole[ROW].to_list() == list(range(len(bodies)))
