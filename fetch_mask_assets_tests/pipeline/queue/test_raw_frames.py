"""The frame of the received messages, made part by part."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fetch_mask_assets.pipeline.batch.frames import RAW_SCHEMA
from fetch_mask_assets.pipeline.queue.raw_frames import MESSAGES_IN_PART, RawFrames
from fetch_mask_assets.pipeline.queue.sqs.delivery import Delivery


@pytest.mark.parametrize(
    "messages", [0, 1, MESSAGES_IN_PART, MESSAGES_IN_PART + 1, 3 * MESSAGES_IN_PART + 7]
)
def test_all_messages_are_in_the_frame_in_their_order(messages: int) -> None:
    frames = RawFrames()

    for first in range(0, messages, 10):
        frames.extend(_delivery(number) for number in range(first, min(first + 10, messages)))

    assert frames.whole().schema == RAW_SCHEMA
    assert frames.whole().rows() == [
        (f"id-{number}", _sent_at(number), 1 + number % 3, f"body-{number}")
        for number in range(messages)
    ]


def _delivery(number: int) -> Delivery:
    milliseconds = int(_sent_at(number).timestamp() * 1_000)
    return Delivery(f"id-{number}", "handle", milliseconds, 1 + number % 3, f"body-{number}")


def _sent_at(number: int) -> datetime:
    return datetime.fromtimestamp(1_700_000_000 + number, UTC)
