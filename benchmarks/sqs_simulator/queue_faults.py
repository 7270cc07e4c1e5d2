"""What can go wrong on the queue: a seeded plan that says which call meets which fault.

Belongs here: faults as frozen values, and the choice of them by seed, operation and call number.
Does not belong here: what a fault does (`harsh_queue`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

ANY = "*"


class FaultKind(StrEnum):
    """What a call meets."""

    EMPTY = "empty"
    """A receive finds nothing, though messages wait."""
    PART = "part"
    """A receive finds only `share` of what waits, as a short poll does that sees some servers."""
    SHUFFLE = "shuffle"
    """A receive takes any of the waiting messages, not the oldest."""
    EARLY = "early"
    """What a receive hands out shows again after `seconds`; at 0 it is a duplicate at once."""
    LOST = "lost"
    """The call takes effect, and its connection closes before the answer."""
    RESET = "reset"
    """The connection is reset before the call takes effect."""
    SLOW = "slow"
    """The call takes effect only after `seconds`."""
    REFUSED = "refused"
    """The whole call is answered with AWS's error `code` and does nothing."""
    ENTRIES = "entries"
    """In a batch call, `share` of the entries, at least one, fail with `code` inside a 200."""
    SILENT = "silent"
    """In a batch call, `share` of the entries, at least one, do nothing and no list names them."""
    STALE = "stale"
    """A delete succeeds and deletes nothing."""
    LAG = "lag"
    """The counts are up to `seconds` old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: which calls of which operation meet it.

    A call meets it by `chance` (0 to 1), or because its number is among `calls`, from 1.
    """

    kind: FaultKind
    operation: str = ANY
    chance: float = 0.0
    calls: tuple[int, ...] = ()
    seconds: float = 0.0
    share: float = 0.5
    code: str = "InternalError"
    is_senders_fault: bool = False


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The faults of a queue. Equal plans choose alike, however the calls interleave."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    def met_by(self, operation: str, number: int) -> dict[FaultKind, Fault]:
        """The faults that the n-th call of an operation meets, by kind."""
        return {
            fault.kind: fault
            for index, fault in enumerate(self.faults)
            if fault.operation in {ANY, operation}
            and (
                number in fault.calls or self.dice(operation, number, index).random() < fault.chance
            )
        }

    def dice(self, operation: str, number: int, salt: object = "") -> random.Random:
        """Random choices of one call: the same for the same seed."""
        return random.Random(f"{self.seed}/{operation}/{number}/{salt}")  # noqa: S311 (faults, not secrets)
