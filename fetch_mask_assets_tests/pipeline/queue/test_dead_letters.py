"""Redrive policies, their problems, and the summary of dead letters."""

from __future__ import annotations

import json
from datetime import timedelta

import polars as pl
import pytest

from fetch_mask_assets.pipeline.queue.dead_letters import (
    RedrivePolicy,
    RetentionPolicy,
    redrive_policy,
    redrive_problems,
    summarize,
)
from fetch_mask_assets_tests.support.logins import SENT_AT, body, raw_batch

ARN = "arn:aws:sqs:eu-central-1:123456789012:login-events-dead-letter"
POLICY = RedrivePolicy("login-events-dead-letter", "123456789012", 5)


@pytest.mark.parametrize("count", [5, "5"])
def test_a_policy_names_the_queue_its_account_and_the_receives(count: object) -> None:
    actual = redrive_policy(json.dumps({"deadLetterTargetArn": ARN, "maxReceiveCount": count}))

    assert actual == POLICY


@pytest.mark.parametrize("text", [None, ""])
def test_no_policy_is_none(text: str | None) -> None:
    assert redrive_policy(text) is None


@pytest.mark.parametrize(
    "text", ["{}", "[]", "x", '{"deadLetterTargetArn": 7, "maxReceiveCount": 5}', '"arn"']
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no redrive policy|Expecting"):
        redrive_policy(text)


@pytest.mark.parametrize(
    ("receives", "login", "dead", "expected"),
    [
        (5, 345_600, 1_209_600, []),
        (3, 345_600, 345_601, []),
        (2, 345_600, 1_209_600, ["maxReceiveCount is 2"]),
        (5, 345_600, 345_600, ["MessageRetentionPeriod"]),
        (1, 345_600, 60, ["maxReceiveCount is 1", "MessageRetentionPeriod"]),
    ],
)
def test_few_receives_and_a_short_retention_are_problems(
    receives: int, login: int, dead: int, expected: list[str]
) -> None:
    policy = RetentionPolicy(login, RedrivePolicy("dead", "1", receives))
    found = list(redrive_problems(policy, dead))

    assert len(found) == len(expected)
    assert all(part in description for part, description in zip(expected, found, strict=True))


def test_dead_letters_are_described_by_count_age_and_profile_and_by_no_value() -> None:
    raw = raw_batch([body(1), body(2), "not json", body(1)], list("abca"))
    raw = raw.with_columns(
        sent_at=pl.Series([SENT_AT, SENT_AT + timedelta(hours=1), SENT_AT, SENT_AT]).cast(
            raw.schema["sent_at"]
        )
    )
    found = summarize(raw)

    assert (found.sampled, found.oldest, found.newest) == (
        3,
        SENT_AT,
        SENT_AT + timedelta(hours=1),
    )
    assert sorted(found.profiles.values()) == [1, 2]
    assert "192.0.2" not in repr(found)


def test_an_empty_queue_is_described_as_such() -> None:
    found = summarize(raw_batch([]))

    assert (found.sampled, found.oldest, found.profiles) == (0, None, {})


def test_a_message_that_must_not_be_decoded_is_described_as_such() -> None:
    found = summarize(raw_batch([body(1), "{}"]), poison={1})

    assert found.profiles["kills the process that masks it"] == 1
    assert len(found.profiles) == 2
