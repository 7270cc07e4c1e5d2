"""A body is one strict JSON object, or it is refused in bounded time and memory."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.pipeline.contract.message_body import parse_object, storable_text
from fetch_mask_assets.pipeline.contract.rejection import Reason, RejectedError, Rejection
from fetch_mask_assets_tests.support.factories import shown


def _rejection(body: str) -> Rejection:
    with pytest.raises(RejectedError) as caught:
        parse_object(body)
    return caught.value.rejection


@pytest.mark.parametrize(
    "body",
    [
        "",
        " \t\r\n ",
        "hello",
        "{",
        '{"a": 1,}',
        '{"a": 1} {"b": 2}',
        '{"a": 1}x',
        "{'a': 1}",
        '{"a": "line\nbreak"}',
        '{"a": 01}',
        '{"a": .5}',
        '{"a": "\\x"}',
        '\ufeff{"a": 1}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": -Infinity}',
        '{"a": [{"b": NaN}]}',
        "NaN",
        "user_id=1&ip=2",
    ],
)
def test_a_body_that_is_not_strict_json_is_refused(body: str) -> None:
    actual = _rejection(body)

    assert Rejection(Reason.NOT_JSON) == actual


@pytest.mark.parametrize("body", ["null", "true", "[]", '[{"a": 1}]', "5", "1.5", '"{}"'])
def test_a_body_that_is_json_but_no_object_is_refused(body: str) -> None:
    actual = _rejection(body)

    assert Rejection(Reason.NOT_AN_OBJECT) == actual


@pytest.mark.parametrize(
    "body",
    [
        '{"a": 1, "a": 1}',
        '{"a": 1, "b": 2, "a": 3}',
        '{"a": 1, "\\u0061": 2}',
        '{"b": {"a": 1, "a": 2}}',
        '{"": 1, "": 2}',
    ],
    ids=["same value", "other value", "escaped spelling", "nested", "empty name"],
)
def test_a_key_that_comes_twice_is_refused(body: str) -> None:
    actual = _rejection(body)

    assert Rejection(Reason.DUPLICATE_KEY) == actual


@pytest.mark.parametrize(
    "number",
    ["1e999", "-1e999", "1E400", "9" * 5_000, "-" + "9" * 5_000, "9" * 60_000, "1e" + "9" * 5_000],
    ids=["1e999", "-1e999", "1E400", "5000 digits", "negative", "60000 digits", "exponent"],
)
def test_a_number_that_no_one_means_is_refused_at_once(number: str) -> None:
    body = f'{{"a": [{number}]}}'
    started = time.process_time()

    actual = _rejection(body)

    assert Rejection(Reason.NUMBER_OUT_OF_RANGE) == actual
    assert time.process_time() - started < 0.5


def test_an_integer_of_400_digits_is_a_number() -> None:
    actual = parse_object(f'{{"a": {"9" * 400}}}')

    assert actual == {"a": 10**400 - 1}


@pytest.mark.parametrize(
    "body",
    [
        '{"a": ' + "[" * 32 + "]" * 32 + "}",
        '{"a": ' * 33 + "1" + "}" * 33,
        '{"a": ' + "[" * 1_200 + "]" * 1_200 + "}",
        '{"a": ' * 1_200 + "1" + "}" * 1_200,
        '{"a": ' + "[" * 30_000 + "]" * 30_000 + "}",
        '{"a": ' + "[" * 30_000,
        '{"a":[' * 8_000,
    ],
    ids=["33", "33 objects", "1200", "1200 objects", "30000", "30000 open", "mixed"],
)
def test_a_body_that_nests_too_deep_is_refused(body: str) -> None:
    actual = _rejection(body)

    assert Rejection(Reason.NESTED_TOO_DEEP) == actual


@pytest.mark.parametrize(
    "body",
    ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000],
    ids=["open", "list", "object"],
)
def test_a_body_nested_100000_deep_is_refused_and_the_process_lives(body: str) -> None:
    actual = _rejection(body)

    assert Rejection(Reason.BODY_TOO_LONG) == actual


def test_32_levels_are_deep_enough() -> None:
    body = '{"a": ' + "[" * 31 + "]" * 31 + "}"

    actual = json.dumps(parse_object(body))

    assert body == actual


def test_brackets_inside_a_text_are_not_levels() -> None:
    actual = parse_object(json.dumps({"a": "[{" * 500}))

    assert actual == {"a": "[{" * 500}


def test_many_shallow_lists_are_not_deep() -> None:
    actual = parse_object('{"a": [' + ", ".join(["[]"] * 1_000) + "]}")

    assert actual == {"a": [[]] * 1_000}


def _padded_to(size: int, character: str = "x") -> str:
    frame = '{"a": ""}'
    return frame.replace('""', f'"{character * ((size - len(frame)) // len(character.encode()))}"')


@pytest.mark.parametrize(
    "body",
    [
        _padded_to(65_537),
        _padded_to(65_539, "é"),
        _padded_to(66_000, "😀"),
        _padded_to(2**20),
        " " * 2**20,
        json.dumps({"a": "x" * 10**6}),
        json.dumps({f"key {number}": number for number in range(100_000)}),
        '{"a": "' + "\ud800" * 22_000 + '"}',
    ],
    ids=["one over", "two-byte", "four-byte", "1 MiB", "blank", "1 MB field", "keys", "surrogates"],
)
def test_a_body_over_64_kib_is_refused_in_bounded_time_and_memory(body: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    try:
        actual = _rejection(body)
        seconds = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert Rejection(Reason.BODY_TOO_LONG) == actual
    assert seconds < 0.5
    assert peak < 4 * 2**20


def test_a_body_of_64_kib_is_read() -> None:
    body = _padded_to(65_536)

    actual = parse_object(body)

    assert actual == {"a": "x" * (65_536 - 9)}


@pytest.mark.parametrize(
    "body",
    [
        "canary",
        '{"canary": 1, "canary": 2}',
        '["canary"]',
        '{"canary": 1e999}',
        '{"a": ' + '["canary", ' * 50 + "1" + "]" * 50 + "}",
        '{"a": "canary' + "x" * 70_000 + '"}',
        '{"canary": NaN}',
    ],
)
def test_no_refusal_shows_anything_of_the_body(body: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_object(body)

    assert "canary" not in shown(caught.value)
    assert "canary" not in repr(caught.value.rejection)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
).filter(lambda value: "Infinity" not in json.dumps(value))


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(st.text(), _JSON, max_size=4))
def test_an_object_is_read_as_it_was_written(value: dict[str, object]) -> None:
    actual = parse_object(json.dumps(value))

    assert value == actual


@given(st.text(st.characters(categories=("L", "Cs", "P")), max_size=20))
def test_a_body_that_a_frame_can_hold_is_itself_and_any_other_means_the_same(text: str) -> None:
    body = json.dumps({"text": text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")})
    assert storable_text(body) == body

    apart = "x".join(text)
    body = json.dumps({"text": apart}, ensure_ascii=False)
    stored = storable_text(body)

    assert json.loads(stored) == json.loads(body)
    assert stored.encode().decode() == stored
    assert (stored == body) is not any("\ud800" <= each <= "\udfff" for each in text)


@pytest.mark.parametrize(
    "body",
    [
        '{"a": "\\\ud800"}',
        '{"a": "\\\\\\\udfff"}',
        '{"a": "\ud83d\ude00"}',
        '{"a": "\ud83d\\ude00"}',
        '{"a": "\\ud83d\ude00"}',
        '{"a": "\\\\\\uDBFF\udc00"}',
        '{"a": "\ud800", "b": "\\\ud800"}',
        "\\\ud800",
        "\ud83d\ude00",
    ],
)
def test_a_body_that_an_escape_would_give_another_meaning_stays_no_json(body: str) -> None:
    stored = storable_text(body)

    assert _rejection(stored) == Rejection(Reason.NOT_JSON)
    assert stored.encode().decode() == stored


@pytest.mark.parametrize(
    "body",
    [
        '{"a": "\\\\\ud800"}',
        '{"a": "\ud83d\\\\ude00"}',
        '{"a": "\\\\ud83d\ude00"}',
        '{"a": "\ude00\ud83d", "b": "\ud83d\ud83d", "c": "\\ude00\ude00"}',
        '{"\ud83d": "\ude00"}',
    ],
)
def test_a_surrogate_whose_escape_means_the_same_is_stored_as_it(body: str) -> None:
    assert parse_object(storable_text(body)) == parse_object(body)


@pytest.mark.parametrize("text", ["\\" * 2**20, "\ud800" * 2**20, "\\\ud800" * 2**19])
def test_a_body_is_made_storable_in_bounded_time(text: str) -> None:
    started = time.process_time()

    storable_text(text + "\ud800 ")

    assert time.process_time() - started < 5
