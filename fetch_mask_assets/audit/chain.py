"""Whether the audit is whole: each row's hash binds its fields and the row before it.

Computed here anew, and not by the database that is checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256

NO_HASH = b""
"""What the first row has as the hash of the row before it."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row of the audit; `at` is None where it is no time that a clock shows."""

    audit_id: int
    at: datetime | None
    person: str
    action: str
    detail: str
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """The first row that does not fit, and how."""

    audit_id: int
    why: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The rows from the first on that fit; `has_expected` says whether a noted hash is theirs."""

    rows: int = 0
    last_id: int = 0
    last_hash: bytes = NO_HASH
    has_expected: bool = True
    broken: ChainBreak | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every row fits and the noted hash, if there was one, is there."""
        return self.broken is None and self.has_expected


def row_hash(row: AuditRow) -> bytes | None:
    """The hash that a row must have (SHA-256), or None if its fields cannot be a row's."""
    if row.at is None or "\n" in row.person + row.action:
        return None
    at = row.at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    text = "\n".join((str(row.audit_id), at, row.person, row.action, row.detail))
    return sha256(row.previous_hash + text.encode()).digest()


def verify_chain(rows: Iterable[AuditRow], expected: bytes | None = None) -> Chain:
    """Follows the chain from its first row to the first that does not fit, or to its end.

    A chain that was cut at its end is whole; only a hash that was noted elsewhere tells.

    Args:
        rows: in the order of their ids.
        expected: a hash that was noted earlier and must be among the rows that fit.
    """
    chain = Chain(has_expected=expected is None)
    for row in rows:
        why = _misfit(chain, row)
        if why:
            return replace(chain, broken=ChainBreak(row.audit_id, why))
        has_expected = chain.has_expected or row.hash == expected
        chain = Chain(chain.rows + 1, row.audit_id, row.hash, has_expected)
    return chain


def _misfit(chain: Chain, row: AuditRow) -> str | None:
    if row.audit_id != chain.last_id + 1:
        return f"row {chain.last_id + 1} was deleted"
    if row.hash != row_hash(row):
        return "its fields are not the ones that its hash was made of: it was edited"
    if row.previous_hash != chain.last_hash:
        return (
            "it was not appended to the row before it: it was inserted, or the row before it was"
            " edited or replaced"
        )
    return None
