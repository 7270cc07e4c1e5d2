"""received = loaded + quarantined + already known."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.pipeline.batch.balance import Balance, total

_COUNTS = st.integers(0, 100_000)


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        (Balance(), True),
        (Balance(10, 10, 0, 0), True),
        (Balance(10, 0, 10, 0), True),
        (Balance(10, 0, 0, 10), True),
        (Balance(10, 6, 3, 1), True),
        (Balance(10, 6, 3, 0), False),
        (Balance(10, 6, 3, 2), False),
        (Balance(0, 1, 0, 0), False),
    ],
)
def test_a_balance_holds_if_every_message_is_accounted_for(
    balance: Balance, *, expected: bool
) -> None:
    actual = balance.holds

    assert expected == actual


def test_the_counts_have_names() -> None:
    actual = Balance(10, 6, 3, 1).as_counts()

    assert actual == {"received": 10, "loaded": 6, "quarantined": 3, "already_known": 1}


@pytest.mark.parametrize(
    ("balances", "expected"),
    [
        ([], Balance()),
        ([Balance(10, 6, 3, 1)], Balance(10, 6, 3, 1)),
        ([Balance(10, 6, 3, 1), Balance(5, 0, 0, 5), Balance()], Balance(15, 6, 3, 6)),
    ],
)
def test_balances_add_up(balances: list[Balance], expected: Balance) -> None:
    actual = total(each for each in balances)

    assert expected == actual


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.tuples(_COUNTS, _COUNTS, _COUNTS), max_size=6))
def test_a_total_of_balances_that_hold_does_so_too(parts: list[tuple[int, int, int]]) -> None:
    assert total(Balance(sum(each), *each) for each in parts).holds
