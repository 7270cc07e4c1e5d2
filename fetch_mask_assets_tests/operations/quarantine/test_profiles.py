"""Quarantined messages are counted by reason, field and profile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fetch_mask_assets.operations.quarantine.profiles import (
    ProfileCount,
    QuarantinedProfile,
    count_profiles,
)
from fetch_mask_assets.pipeline.contract.body_profile import NOT_JSON

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


def test_messages_are_counted_by_profile_with_first_and_last() -> None:
    messages = [
        QuarantinedProfile("missing", "ip", "user_id", NOON + timedelta(hours=hours))
        for hours in (3, 1, 2)
    ]
    messages.insert(1, QuarantinedProfile("not_json", None, NOT_JSON, NOON))

    assert count_profiles(messages) == (
        ProfileCount(
            "missing", "ip", "user_id", 3, NOON + timedelta(hours=1), NOON + timedelta(hours=3)
        ),
        ProfileCount("not_json", None, NOT_JSON, 1, NOON, NOON),
    )


def test_an_empty_quarantine_has_no_counts() -> None:
    assert count_profiles([]) == ()
