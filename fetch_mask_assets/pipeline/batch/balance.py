"""The account of a batch: received = loaded + quarantined + already known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Balance:
    """The outcome of a batch, in messages."""

    received: int = 0
    loaded: int = 0
    quarantined: int = 0
    already_known: int = 0

    @property
    def holds(self) -> bool:
        """Return whether every message received is accounted for."""
        return self.received == self.loaded + self.quarantined + self.already_known

    def as_counts(self) -> dict[str, int]:
        """The four counts by name."""
        return asdict(self)


def total(balances: Iterable[Balance]) -> Balance:
    """The account of several batches together."""
    counts = [
        (each.received, each.loaded, each.quarantined, each.already_known) for each in balances
    ]
    return Balance(*(sum(column) for column in zip(*counts, strict=True))) if counts else Balance()


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """A batch as the database counts it: its record, its ledger rows, its quarantined messages."""

    balance: Balance
    ledger_rows: int
    quarantine_rows: int
