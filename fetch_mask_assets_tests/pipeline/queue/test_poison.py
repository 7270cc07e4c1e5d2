"""Which messages are tried first, and how those that kill the process are told from the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetch_mask_assets.pipeline.queue.poison import (
    IsolationResult,
    Unit,
    exclude_rows,
    is_code_fault,
    isolate,
    suspects,
    units,
)
from fetch_mask_assets_tests.support.logins import bodies, raw_batch


def _received(*counts: int) -> pl.DataFrame:
    raw = raw_batch(bodies(len(counts)))
    return raw.with_columns(receive_count=pl.Series(counts, dtype=pl.Int32))


def _dies_of(poison: set[int]) -> Callable[[Sequence[Unit]], int]:
    """A process that dies at the first unit with a poisoned row."""

    def dry_run(pending: Sequence[Unit]) -> int:
        dead = [number for number, unit in enumerate(pending) if poison & set(unit)]
        return dead[0] if dead else len(pending)

    return dry_run


@pytest.mark.parametrize(
    ("counts", "min_receives", "expected"),
    [
        ((), 2, []),
        ((1, 1, 1), 2, []),
        ((1, 2, 1), 2, [1]),
        ((2, 1, 2), 2, [0, 2]),
        ((1, 3, 2), 2, [1, 2, 0]),
        ((1, 1), 1, [0, 1]),
    ],
    ids=["empty", "first", "one again", "two again", "one near its end", "dead letters"],
)
def test_first_deliveries_are_tried_only_beside_one_that_is_near_its_end(
    counts: tuple[int, ...], min_receives: int, expected: list[int]
) -> None:
    actual = suspects(_received(*counts), min_receives)

    assert actual[:1] == expected[:1]
    assert sorted(actual) == sorted(expected)


def test_a_message_that_came_twice_is_tried_and_excluded_in_both_its_rows() -> None:
    raw = _received(1, 2, 1)
    raw = raw.with_columns(message_id=pl.Series(["same", "same", "other"]))

    assert sorted(suspects(raw)) == [0, 1]
    assert exclude_rows(raw, {1})["message_id"].to_list() == ["other"]


@given(
    st.sets(st.integers(0, 999), max_size=12),
    st.integers(0, 1_000),
)
def test_exactly_the_poison_is_isolated_whatever_it_is(poison: set[int], count: int) -> None:
    pending = units(range(count), [1] * count)
    actual = isolate(pending, _dies_of(poison))

    assert actual == IsolationResult(frozenset(row for row in poison if row < count))


def test_two_processes_die_of_one_poisonous_message() -> None:
    calls = 0

    def dry_run(pending: Sequence[Unit]) -> int:
        nonlocal calls
        calls += 1
        return _dies_of({777})(pending)

    isolate(units(range(1_000), [1] * 1_000), dry_run)

    assert calls == 3


def test_rows_that_are_not_tried_in_time_are_excluded() -> None:
    answers = iter([1, 0, None])
    actual = isolate([(0, 1), (2, 3), (4,)], lambda _: next(answers))

    assert actual == IsolationResult(poison=frozenset({2}), untried=frozenset({3, 4}))
    assert actual.excluded == {2, 3, 4}


def test_a_process_that_dies_of_many_but_of_none_alone_isolates_none() -> None:
    def dry_run(pending: Sequence[Unit]) -> int:
        return 0 if len(pending[0]) > 1 else len(pending)

    assert isolate([(0, 1, 2)], dry_run) == IsolationResult()


def test_units_are_bounded_in_messages_and_bytes_and_keep_every_row() -> None:
    sizes = [100] * 450 + [3 * 2**20, 2 * 2**20, 9 * 2**20, 10]
    actual = units(range(454), sizes)

    assert [row for unit in actual for row in unit] == list(range(454))
    assert max(len(unit) for unit in actual) == 200
    assert all(len(unit) == 1 or sum(sizes[n] for n in unit) <= 2**22 for unit in actual)


def test_excluded_rows_are_taken_out_of_the_batch() -> None:
    raw = _received(1, 2, 3)

    assert exclude_rows(raw, {1}).equals(raw[[0, 2]])
    assert exclude_rows(raw, ()) is raw


@pytest.mark.parametrize(
    ("tried", "excluded", "expected"),
    [(11, 11, True), (10, 10, False), (12, 11, False), (0, 0, False)],
)
def test_many_messages_and_none_fit_are_a_fault_of_the_code(
    tried: int, excluded: int, *, expected: bool
) -> None:
    assert is_code_fault(tried, excluded) is expected
