"""Faults of a queue: a seeded plan that chooses the faults of each call.

The choice depends on the seed, the operation and the number of the call. `harsh_queue` carries the
faults out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

ANY = "*"


class FaultKind(StrEnum):
    """A kind of fault, by its effect on a call."""

    EMPTY = "empty"
    """A receive returns nothing, although messages wait."""
    PART = "part"
    """A receive returns only from `share` of the waiting messages, as a short poll does."""
    SHUFFLE = "shuffle"
    """A receive takes any of the waiting messages, not the oldest."""
    EARLY = "early"
    """Received messages are visible again after `seconds`; after 0 they are duplicates at once."""
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
    """One fault of some calls of an operation.

    It happens by `chance` (0 to 1), and to the calls whose numbers, from 1, are in `calls`.
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
    """The faults of a queue. Equal plans make equal choices, in whatever order the calls come."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    def met_by(self, operation: str, number: int) -> dict[FaultKind, Fault]:
        """The faults of the n-th call of an operation, by kind."""
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
