"""What a redrive policy says, and what of it would lose messages."""

from __future__ import annotations

import json
from datetime import timedelta

import polars as pl
import pytest

from fetch_mask_assets.pipeline.queue.dead_letters import (
    QueueTerms,
    RedrivePolicy,
    described,
    redrive_policy,
    weaknesses,
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
def test_few_receives_and_a_short_retention_are_weaknesses(
    receives: int, login: int, dead: int, expected: list[str]
) -> None:
    terms = QueueTerms(login, RedrivePolicy("dead", "1", receives))
    found = list(weaknesses(terms, dead))

    assert len(found) == len(expected)
    assert all(part in description for part, description in zip(expected, found, strict=True))


def test_dead_letters_are_described_by_count_age_and_shape_and_by_no_value() -> None:
    raw = raw_batch([body(1), body(2), "not json", body(1)], list("abca"))
    raw = raw.with_columns(
        sent_at=pl.Series([SENT_AT, SENT_AT + timedelta(hours=1), SENT_AT, SENT_AT]).cast(
            raw.schema["sent_at"]
        )
    )
    found = described(raw)

    assert (found.looked_at, found.oldest, found.newest) == (
        3,
        SENT_AT,
        SENT_AT + timedelta(hours=1),
    )
    assert sorted(found.shapes.values()) == [1, 2]
    assert "192.0.2" not in repr(found)


def test_an_empty_queue_is_described_as_such() -> None:
    found = described(raw_batch([]))

    assert (found.looked_at, found.oldest, found.shapes) == (0, None, {})


def test_a_message_that_must_not_be_decoded_is_described_as_such() -> None:
    found = described(raw_batch([body(1), "{}"]), unfit={1})

    assert found.shapes["kills the process that masks it"] == 1
    assert len(found.shapes) == 2
