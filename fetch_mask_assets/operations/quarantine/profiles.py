"""Quarantined messages counted by profile: the field set of a body, without the sender's text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.masker import Sealer
from fetch_mask_assets.operations.quarantine.messages import QuarantinedMessage
from fetch_mask_assets.pipeline.contract.body_profile import body_profile

UNREADABLE = "cannot be opened"
"""The profile of a body under a key that the keyset of the quarantine does not have."""


@dataclass(frozen=True, slots=True)
class QuarantinedProfile:
    """The profile of one quarantined message."""

    reason: str
    field: str | None
    profile: str
    quarantined_at: datetime


@dataclass(frozen=True, slots=True)
class ProfileCount:
    """The number of messages with one reason, field and profile, and when they were quarantined."""

    reason: str
    field: str | None
    profile: str
    messages: int
    first_seen: datetime
    last_seen: datetime


def profile_of(message: QuarantinedMessage, sealer: Sealer) -> QuarantinedProfile:
    """Open a message in memory; a body that does not open has the profile `UNREADABLE`."""
    try:
        profile = body_profile(sealer.open(message.sealed_body, message.message_id))
    except TokenError:
        profile = UNREADABLE
    return QuarantinedProfile(message.reason, message.field, profile, message.quarantined_at)


def count_profiles(messages: Iterable[QuarantinedProfile]) -> tuple[ProfileCount, ...]:
    """Count messages by reason, field and profile, highest count first."""
    counts: dict[tuple[str, str | None, str], ProfileCount] = {}
    for each in messages:
        key, at = (each.reason, each.field, each.profile), each.quarantined_at
        count = counts.get(key, ProfileCount(*key, messages=0, first_seen=at, last_seen=at))
        counts[key] = replace(
            count,
            messages=count.messages + 1,
            first_seen=min(count.first_seen, at),
            last_seen=max(count.last_seen, at),
        )
    return tuple(sorted(counts.values(), key=_order))


def _order(count: ProfileCount) -> tuple[int, str, str, str]:
    return (-count.messages, count.reason, count.field or "", count.profile)
