"""The original values are read from the bodies, apart from the decoder."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.masking.fields import MASKED_FIELDS
from fetch_mask_assets.pipeline.batch.frames import MASKED_SCHEMA
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch
from fetch_mask_assets.pipeline.batch.original_values import original_column
from fetch_mask_assets.pipeline.contract.message_body import storable_text
from fetch_mask_assets_tests.support.factories import body, body_with_extra, keyring, raw_batch

_Originals = tuple[str, ...]


def _originals(*bodies: str) -> list[_Originals]:
    """The original values of a batch whose rows all claim to be logins."""
    raw = raw_batch(bodies)
    masked = pl.DataFrame({"message_id": raw["message_id"]}).match_to_schema(
        MASKED_SCHEMA, missing_columns="insert"
    )
    logins = MaskedBatch(raw, masked, keyring()).logins
    return logins.select(map(original_column, MASKED_FIELDS)).rows()


def _parsed(text: str) -> list[_Originals]:
    event = json.loads(text)
    values = [event.get(field.name) for field in MASKED_FIELDS]
    texts = tuple(value for value in values if isinstance(value, str))
    return [texts] if len(texts) == len(values) else []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (body(ip="a", device_id="b"), ("a", "b")),
        (body(ip='"', device_id="\\"), ('"', "\\")),
        (body(ip="é\n", device_id="\t"), ("é\n", "\t")),
        ('{"device_id"\n:\t"b" , "ip":"a"}', ("a", "b")),
        ('{"user_id": "ip", "device_id": "b", "ip": "a"}', ("a", "b")),
        (body_with_extra('{"ip": "another", "device_id": "other"}'), ("192.0.2.17", "593-47-5928")),
        ('{"x": {"ip": "another"}, "ip": "a", "device_id": "b"}', ("a", "b")),
        ('{"i\\u0070": "a", "device_id": "b"}', ("a", "b")),
        ('{"ip": "first", "device_id": "b", "ip": "a"}', ("a", "b")),
        ('{"ip": "first", "device_id": "b", "i\\u0070": "a"}', ("a", "b")),
        ('{"ip": "", "device_id": "{"}', ("", "{")),
    ],
)
def test_the_originals_are_those_of_the_body(text: str, expected: _Originals) -> None:
    assert _originals(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        '{"ip": 1, "device_id": "b"}',
        '{"ip": null, "device_id": "b"}',
        '{"x": {"ip": "a"}, "device_id": "b"}',
        '{"x": "ip", "device_id": "b"}',
        "[]",
        "x",
    ],
)
def test_a_body_without_a_value_has_no_originals(text: str) -> None:
    assert _originals(text) == []


_NAMES = st.sampled_from(["ip", "device_id", "x", 'ip": "', "IP"])
_VALUES = st.sampled_from(["", "ip", "device_id", "a", "{", ":", '"', "\\", "é", '"ip": "a"'])
_MEMBERS = st.dictionaries(
    _NAMES,
    _VALUES | st.none() | st.integers() | st.dictionaries(_NAMES, _VALUES, max_size=2),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(events=st.lists(st.tuples(_MEMBERS, st.booleans()), max_size=5))
def test_the_originals_of_a_batch_are_those_that_a_parser_finds(
    events: list[tuple[dict[str, object], bool]],
) -> None:
    texts = [storable_text(json.dumps(event, ensure_ascii=escaped)) for event, escaped in events]
    expected = [each for text in texts for each in _parsed(text)]

    assert _originals(*texts) == expected
