"""Poison messages: which messages are suspects, and which of them kill the process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import polars as pl

MIN_SUSPECT_RECEIVES = 2
"""A message received this often may have killed an earlier process."""

MIN_ENDANGERED_RECEIVES = 3
"""A message received this often is near the dead-letter queue: all of its batch is dry-run, so that
no first delivery kills the process either."""

MAX_POISON_MESSAGES = 10
"""If more messages than this kill the process and none passes, the code is at fault."""

_UNIT_MESSAGES = 200
_UNIT_BYTES = 4 * 2**20

Unit = tuple[int, ...]
"""Rows of a raw batch that are dry-run together."""


@dataclass(frozen=True, slots=True)
class IsolationResult:
    """Rows of a raw batch that kill the process, and rows for which there was no time."""

    poison: frozenset[int] = frozenset()
    untried: frozenset[int] = frozenset()

    @property
    def excluded(self) -> frozenset[int]:
        """The rows that the batch goes on without."""
        return self.poison | self.untried


def suspects(raw: pl.DataFrame, min_receives: int = MIN_SUSPECT_RECEIVES) -> list[int]:
    """The rows of a raw batch to dry-run, most received first; none if all are first deliveries.

    A message that came twice in the batch is tried in both its rows.
    """
    most = raw.select(pl.col("receive_count").max().fill_null(0)).item()
    if most < min_receives:
        return []
    least = 1 if most >= MIN_ENDANGERED_RECEIVES else min_receives
    received = pl.col("receive_count").max().over("message_id")
    rows = raw.with_row_index("row").filter(received >= least)
    ordered: list[int] = rows.sort(received, descending=True)["row"].to_list()
    return ordered


def units(rows: Sequence[int], sizes: Sequence[int]) -> list[Unit]:
    """The rows in groups of bounded count and bytes; `sizes` are the bytes of the rows' bodies."""
    groups: list[list[int]] = []
    room = 0
    for row, size in zip(rows, sizes, strict=True):
        if not groups or len(groups[-1]) == _UNIT_MESSAGES or size > room:
            groups.append([])
            room = _UNIT_BYTES
        groups[-1].append(row)
        room -= size
    return [tuple(group) for group in groups]


def isolate(
    pending: Sequence[Unit], dry_run: Callable[[Sequence[Unit]], int | None]
) -> IsolationResult:
    """Finds the rows that kill a process which masks them.

    Args:
        pending: the units to dry-run.
        dry_run: returns how many units passed, in order, before the process died; None if there
            is no time for another process.
    """
    poison: set[int] = set()
    while pending:
        passed = dry_run(pending)
        if passed is None:
            untried = frozenset(row for unit in pending for row in unit)
            return IsolationResult(frozenset(poison), untried)
        if passed >= len(pending):
            break
        culprit, rest = pending[passed], pending[passed + 1 :]
        if len(culprit) == 1:
            poison.update(culprit)
            pending = rest
        else:
            pending = [*((row,) for row in culprit), *rest]
    return IsolationResult(frozenset(poison))


def exclude_rows(raw: pl.DataFrame, rows: Collection[int]) -> pl.DataFrame:
    """A raw batch without the messages of these rows, and without their other rows."""
    if not rows:
        return raw
    return raw.filter(~pl.col("message_id").is_in(raw["message_id"][sorted(rows)].to_list()))


def is_code_fault(tried: int, excluded: int) -> bool:
    """Return whether so many of the tried messages are excluded that no message is to blame."""
    return tried == excluded > MAX_POISON_MESSAGES
