"""A body profile has the contract's keys by name, and no text of the sender."""

from __future__ import annotations

import json

import pytest

from fetch_mask_assets.pipeline.contract.body_profile import (
    NOT_AN_OBJECT,
    NOT_JSON,
    body_profile,
)
from fetch_mask_assets_tests.support.factories import DEVICE_ID, IP, body, body_without


def test_the_keys_of_the_contract_are_named_in_one_order() -> None:
    assert body_profile(body()) == "app_version,device_id,device_type,ip,locale,user_id"
    assert body_profile('{"user_id": 1, "ip": 2, "device_id": 3}') == "device_id,ip,user_id"
    assert body_profile('{"ip": 2, "device_id": 3, "user_id": 1}') == "device_id,ip,user_id"
    assert body_profile(body_without("ip")) == "app_version,device_id,device_type,locale,user_id"


def test_other_keys_are_a_number_because_they_may_be_values_themselves() -> None:
    text = json.dumps({"device_id": 1, "ip": 2, "user_id": 3, IP: 4, DEVICE_ID: 5})

    assert body_profile(text) == "device_id,ip,user_id +2 unknown"
    assert body_profile(json.dumps({IP: 1})) == "no known field +1 unknown"
    assert body_profile('{"user_id ": 1, "IP": 2}') == "no known field +2 unknown"


def test_values_are_not_in_the_profile() -> None:
    profiles = {
        body_profile(json.dumps({"ip": value})) for value in (None, 1, "x", [1], {"a": 1}, 1.5)
    }

    assert profiles == {"ip"}


def test_a_sender_cannot_make_the_list_long() -> None:
    bodies = [json.dumps({f"key-{each}": 1 for each in range(count)}) for count in range(2, 300)]

    assert len({body_profile(text) for text in bodies}) == 9
    assert body_profile(bodies[-1]) == "no known field +10 or more unknown"


def test_keys_that_occur_twice_are_counted() -> None:
    assert body_profile('{"ip": 1, "ip": 2, "x": 1, "x": 2}') == "ip +1 unknown +2 repeated"


@pytest.mark.parametrize(
    "text", ["", "x", "{", '{"ip": "192.0.2.1', "{'ip': 1}", "\ufeff{}", "[" * 100_000]
)
def test_what_is_not_json_is_not(text: str) -> None:
    assert body_profile(text) == NOT_JSON


@pytest.mark.parametrize("text", ["[]", '"192.0.2.1"', "1", "null", '[{"ip": 1}]', "9" * 5_000])
def test_what_is_no_object_has_no_keys(text: str) -> None:
    assert body_profile(text) == NOT_AN_OBJECT


def test_an_empty_object_has_no_known_field() -> None:
    assert body_profile("{}") == "no known field"
