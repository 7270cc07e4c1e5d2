"""Which messages to try in a process of their own, and which of them killed it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import polars as pl

MIN_SUSPECT_RECEIVES = 2
"""A message that comes so often may have killed the process that took it before."""

MIN_ENDANGERED_RECEIVES = 3
"""With a message that comes so often, a first delivery must not kill the process either: its batch
is near the dead-letter queue."""

MAX_POISON_MESSAGES = 10
"""More messages than this, and no other that is fit, are a fault of the code, not of messages."""

_UNIT_MESSAGES = 200
_UNIT_BYTES = 4 * 2**20

Unit = tuple[int, ...]
"""Lines of a raw batch that are tried together."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Lines of a raw batch to leave on the queue: they killed a process, or time was over."""

    poison: frozenset[int] = frozenset()
    untried: frozenset[int] = frozenset()

    @property
    def left(self) -> frozenset[int]:
        """All that is left on the queue."""
        return self.poison | self.untried


def suspects(raw: pl.DataFrame, watched: int = MIN_SUSPECT_RECEIVES) -> list[int]:
    """The lines of a raw batch to try first, most received first; none of a batch of first ones.

    A message that came twice in the batch is tried in both its lines.
    """
    most = raw.select(pl.col("receive_count").max().fill_null(0)).item()
    if most < watched:
        return []
    least = 1 if most >= MIN_ENDANGERED_RECEIVES else watched
    received = pl.col("receive_count").max().over("message_id")
    lines = raw.with_row_index("line").filter(received >= least)
    ordered: list[int] = lines.sort(received, descending=True)["line"].to_list()
    return ordered


def units(lines: Sequence[int], sizes: Sequence[int]) -> list[Unit]:
    """The lines in groups of bounded count and bytes; `sizes` are those of the lines' bodies."""
    groups: list[list[int]] = []
    room = 0
    for line, size in zip(lines, sizes, strict=True):
        if not groups or len(groups[-1]) == _UNIT_MESSAGES or size > room:
            groups.append([])
            room = _UNIT_BYTES
        groups[-1].append(line)
        room -= size
    return [tuple(group) for group in groups]


def isolate(pending: Sequence[Unit], dry_run: Callable[[Sequence[Unit]], int | None]) -> Verdict:
    """Finds the lines that kill a process which tries them.

    Args:
        pending: what to try.
        dry_run: returns how many units passed, in order, before the process died; None if there
            is no time for another process.
    """
    poison: set[int] = set()
    while pending:
        passed = dry_run(pending)
        if passed is None:
            return Verdict(frozenset(poison), frozenset(line for each in pending for line in each))
        if passed >= len(pending):
            break
        culprit, rest = pending[passed], pending[passed + 1 :]
        if len(culprit) == 1:
            poison.update(culprit)
            pending = rest
        else:
            pending = [*((line,) for line in culprit), *rest]
    return Verdict(frozenset(poison))


def without(raw: pl.DataFrame, left: Collection[int]) -> pl.DataFrame:
    """A raw batch without the messages, named by any of their lines, that are left on the queue."""
    if not left:
        return raw
    return raw.filter(~pl.col("message_id").is_in(raw["message_id"][sorted(left)].to_list()))


def is_code_fault(tried: int, left: int) -> bool:
    """Whether so many of what was tried are left that no message can be to blame."""
    return tried == left > MAX_POISON_MESSAGES
