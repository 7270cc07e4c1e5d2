"""Limits of a batch, and the delay after which released messages are visible again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fetch_mask_assets.settings import QueueTuning

MAX_RECEIVE = 10

SLOW_SECONDS = 0.005
"""A longer request is mostly waiting, so that others can be made meanwhile."""

_FIRST_DELAY_SECONDS = 5
_MAX_DELAY_SECONDS = 900


class DrainEnd(StrEnum):
    """Why a batch stopped receiving."""

    DRY = "dry"
    MESSAGES = "messages"
    BYTES = "bytes"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """The limits of a batch; the first one reached ends it."""

    messages: int
    bytes: int
    seconds: float
    empty_receives: int

    @classmethod
    def of(cls, tuning: QueueTuning) -> DrainLimits:
        """The limits by the numbers of the deployment."""
        return cls(
            messages=tuning.batch_messages,
            bytes=tuning.batch_bytes,
            seconds=tuning.batch_seconds,
            empty_receives=tuning.empty_receives,
        )


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """Progress of a batch; `claimed` counts messages that active receives may still return.

    `active` counts those receives; `largest` is the number of bytes of the largest body so far.
    """

    messages: int = 0
    claimed: int = 0
    bytes: int = 0
    empty_receives: int = 0
    seconds: float = 0.0
    largest: int = 0
    active: int = 0


def drain_end(limits: DrainLimits, progress: DrainProgress) -> DrainEnd | None:
    """Return why the batch is complete; None if it is not."""
    if progress.messages + progress.claimed >= limits.messages:
        return DrainEnd.MESSAGES
    if progress.bytes >= limits.bytes:
        return DrainEnd.BYTES
    if progress.empty_receives >= limits.empty_receives:
        return DrainEnd.DRY
    if progress.seconds >= limits.seconds:
        return DrainEnd.TIME
    return None


def next_claim(limits: DrainLimits, progress: DrainProgress) -> int:
    """The maximum number of messages for the next receive, 1 to 10.

    It is 0 while the active receives may complete the batch: with messages as large as the largest
    so far they fill its bytes, or with empty answers they end it.
    """
    empty = progress.empty_receives
    if empty and empty + progress.active >= limits.empty_receives:
        return 0
    missing = max(1, limits.messages - progress.messages - progress.claimed)
    room = (limits.bytes - progress.bytes) // max(1, progress.largest) - progress.claimed
    return min(MAX_RECEIVE, missing, max(room, 0 if progress.claimed else 1))


def release_delay(receive_count: int) -> int:
    """Seconds until a released message is visible again; doubles with each receive."""
    doublings = min(max(receive_count, 1) - 1, 16)
    return int(min(_FIRST_DELAY_SECONDS * 2**doublings, _MAX_DELAY_SECONDS))
