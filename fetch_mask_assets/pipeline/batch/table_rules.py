"""The rules that the table must keep after a commit, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fetch_mask_assets.pipeline.batch.balance import BatchCounts


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The messages that a run received, and the counts of the database.

    `counts` is None where the run committed no batch; `received` counts deliveries.
    `unprefixed_rows` counts up to 1,000 rows of each kind.
    """

    received: int
    counts: BatchCounts | None
    unprefixed_rows: int


@dataclass(frozen=True, slots=True)
class TableRule:
    """A rule: its name, its sentence, the remedy, and the number of violations."""

    name: str
    description: str
    remedy: str
    is_blocking: bool
    count_violations: Callable[[TableFacts], int]


def _imbalance(facts: TableFacts) -> int:
    if facts.counts is None:
        return facts.received
    balance = facts.counts.balance
    accounted = balance.loaded + balance.quarantined + balance.already_known
    return (
        abs(facts.received - balance.received)
        + abs(balance.received - accounted)
        + abs(facts.counts.ledger_rows - balance.loaded - balance.quarantined)
        + abs(facts.counts.quarantine_rows - balance.quarantined)
    )


TABLE_RULES = (
    TableRule(
        "balance_holds",
        "received = loaded + quarantined + already known, and the ledger and the quarantine count"
        " the same.",
        "Stop the sensor. Compare login_ingest.batch with login_ingest.ledger for this run before"
        " anything is deleted by hand. A quarantined message that was replayed, discarded or erased"
        " in the same second is missed here, and accounted for in login_ingest.quarantine_balance.",
        is_blocking=True,
        count_violations=_imbalance,
    ),
    TableRule(
        "masked_columns_are_tokens",
        "The masked columns of user_logins hold no text without the prefix of a token, in the whole"
        " table. The nightly check every_token_is_well_formed looks at the rest of each text.",
        "Such rows were there before this product, or another program wrote them. Their values can"
        " be recovered by every reader of the table: mask or remove them.",
        is_blocking=False,
        count_violations=lambda facts: facts.unprefixed_rows,
    ),
)
