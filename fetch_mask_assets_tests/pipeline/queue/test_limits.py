"""When a batch is complete, and when its messages come back."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.pipeline.queue.limits import (
    DrainEnd,
    DrainLimits,
    DrainProgress,
    drain_end,
    next_claim,
    release_delay,
)

LIMITS = DrainLimits(messages=100, bytes=1_000, seconds=30.0, empty_receives=4)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (DrainProgress(), None),
        (DrainProgress(99, 0, 999, 3, 29.9), None),
        (DrainProgress(messages=100), DrainEnd.MESSAGES),
        (DrainProgress(claimed=100), DrainEnd.MESSAGES),
        (DrainProgress(messages=90, claimed=10), DrainEnd.MESSAGES),
        (DrainProgress(messages=101), DrainEnd.MESSAGES),
        (DrainProgress(messages=90, claimed=9), None),
        (DrainProgress(bytes=1_000), DrainEnd.BYTES),
        (DrainProgress(bytes=5_000), DrainEnd.BYTES),
        (DrainProgress(seconds=30.0), DrainEnd.TIME),
        (DrainProgress(seconds=31.0), DrainEnd.TIME),
        (DrainProgress(empty_receives=4), DrainEnd.DRY),
        (DrainProgress(empty_receives=9), DrainEnd.DRY),
        (DrainProgress(100, 0, 1_000, 4, 30.0), DrainEnd.MESSAGES),
        (DrainProgress(0, 0, 1_000, 4, 30.0), DrainEnd.BYTES),
        (DrainProgress(0, 0, 0, 4, 30.0), DrainEnd.DRY),
        (DrainProgress(0, 0, 0, 3, 30.0), DrainEnd.TIME),
    ],
)
def test_a_batch_ends_at_the_first_limit_it_reaches(
    progress: DrainProgress, expected: DrainEnd | None
) -> None:
    actual = drain_end(LIMITS, progress)

    assert expected == actual


@pytest.mark.parametrize(
    ("messages", "claimed", "expected"),
    [
        (0, 0, 10),
        (90, 0, 10),
        (91, 0, 9),
        (80, 15, 5),
        (0, 99, 1),
        (99, 0, 1),
        (100, 0, 1),
        (200, 50, 1),
    ],
)
def test_a_receive_asks_for_what_is_missing_and_for_1_to_10(
    messages: int, claimed: int, expected: int
) -> None:
    actual = next_claim(LIMITS, DrainProgress(messages=messages, claimed=claimed))

    assert expected == actual


@pytest.mark.parametrize(
    ("claimed", "bytes_", "largest", "expected"),
    [
        (0, 0, 100, 10),
        (0, 900, 100, 1),
        (0, 950, 100, 1),
        (0, 700, 100, 3),
        (2, 700, 100, 1),
        (3, 700, 100, 0),
        (50, 700, 100, 0),
        (50, 0, 0, 10),
        (0, 0, 5_000, 1),
        (1, 0, 5_000, 0),
    ],
)
def test_a_receive_asks_for_no_more_than_the_bytes_of_the_batch_have_room_for(
    claimed: int, bytes_: int, largest: int, expected: int
) -> None:
    progress = DrainProgress(claimed=claimed, bytes=bytes_, largest=largest)

    actual = next_claim(LIMITS, progress)

    assert expected == actual


@pytest.mark.parametrize(
    ("empty", "active", "expected"),
    [(0, 0, 10), (0, 9, 10), (1, 0, 10), (1, 2, 10), (1, 3, 0), (3, 0, 10), (3, 1, 0), (3, 9, 0)],
)
def test_no_receive_begins_if_the_active_ones_can_end_the_batch(
    empty: int, active: int, expected: int
) -> None:
    actual = next_claim(LIMITS, DrainProgress(active=active, empty_receives=empty))

    assert expected == actual


@settings(max_examples=100, deadline=None)
@given(
    limit=st.integers(1, 200),
    answers=st.lists(st.tuples(st.booleans(), st.integers(0, 10)), max_size=80),
)
def test_claims_never_overshoot_the_limit(limit: int, answers: list[tuple[bool, int]]) -> None:
    """Several receives are under way at once; each answer brings no more than was claimed."""
    limits = dataclasses.replace(LIMITS, messages=limit)
    progress, under_way = DrainProgress(), [0][:0]

    for sends, brought in answers:
        if sends and drain_end(limits, progress) is None:
            claim = next_claim(limits, progress)
            under_way.append(claim)
            progress = dataclasses.replace(progress, claimed=progress.claimed + claim)
        elif under_way:
            claim = under_way.pop(0)
            progress = dataclasses.replace(
                progress,
                messages=progress.messages + min(brought, claim),
                claimed=progress.claimed - claim,
            )

        assert progress.messages + progress.claimed <= limit


@pytest.mark.parametrize(
    ("receive_count", "expected"),
    [
        (-1, 5),
        (0, 5),
        (1, 5),
        (2, 10),
        (3, 20),
        (7, 320),
        (8, 640),
        (9, 900),
        (10, 900),
        (10**9, 900),
    ],
)
def test_a_message_comes_back_later_with_each_receive(receive_count: int, expected: int) -> None:
    actual = release_delay(receive_count)

    assert expected == actual
    assert isinstance(actual, int)
