"""What the table must keep after a commit."""

from __future__ import annotations

import pytest

from fetch_mask_assets.pipeline.batch.balance import Balance, BatchCounts
from fetch_mask_assets.pipeline.batch.table_rules import TABLE_RULES, TableFacts

BALANCE_HOLDS, ONLY_TOKENS = TABLE_RULES


def _counts(
    balance: Balance = Balance(10, 6, 3, 1),  # noqa: B008 (frozen)
    ledger_rows: int = 9,
    quarantine_rows: int = 3,
) -> BatchCounts:
    return BatchCounts(balance, ledger_rows, quarantine_rows)


def _facts(
    counts: BatchCounts | None, *, received: int = 10, unprefixed_rows: int = 0
) -> TableFacts:
    return TableFacts(received=received, counts=counts, unprefixed_rows=unprefixed_rows)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (_facts(_counts()), 0),
        (_facts(None, received=0), 0),
        (_facts(_counts(Balance(), 0, 0), received=0), 0),
        (_facts(None), 10),
        (_facts(_counts(), received=11), 1),
        (_facts(_counts(), received=0), 10),
        (_facts(_counts(ledger_rows=8)), 1),
        (_facts(_counts(ledger_rows=10)), 1),
        (_facts(_counts(quarantine_rows=0)), 3),
        (_facts(_counts(Balance(10, 6, 3, 0))), 1),
        (_facts(_counts(Balance(10, 7, 3, 1), ledger_rows=10)), 1),
        (_facts(_counts(Balance(10, 5, 4, 1))), 1),
    ],
    ids=[
        "balanced",
        "no batch, nothing received",
        "empty batch",
        "received and not committed",
        "one more received",
        "none received",
        "a ledger line less",
        "a ledger line more",
        "no quarantine",
        "one unaccounted",
        "one too many",
        "a login counted as quarantined",
    ],
)
def test_the_balance_must_hold_in_every_place_that_counts(facts: TableFacts, expected: int) -> None:
    actual = BALANCE_HOLDS.count_violations(facts)

    assert expected == actual


@pytest.mark.parametrize("rows", [0, 1, 1_000])
def test_rows_without_tokens_are_counted(rows: int) -> None:
    actual = ONLY_TOKENS.count_violations(_facts(_counts(), unprefixed_rows=rows))

    assert rows == actual


def test_a_broken_balance_blocks_and_rows_of_others_do_not() -> None:
    actual = [(rule.name, rule.is_blocking) for rule in TABLE_RULES]

    assert actual == [("balance_holds", True), ("masked_columns_are_tokens", False)]
