"""Verification of the audit's hash chain: a row's hash covers its fields and the row before it.

Hashes are computed here, and not by the database under verification.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256

NO_HASH = b""
"""The previous hash of the first row."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row of the audit; `at` is None if Python cannot represent it."""

    audit_id: int
    at: datetime | None
    actor: str
    action: str
    detail: str
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """The first row that does not fit the chain, and the reason."""

    audit_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The rows that fit, from the first on; `has_expected`: the expected hash is among theirs."""

    rows: int = 0
    last_id: int = 0
    last_hash: bytes = NO_HASH
    has_expected: bool = True
    broken: ChainBreak | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every row fits and the expected hash, if one was given, was found."""
        return self.broken is None and self.has_expected


def row_hash(row: AuditRow) -> bytes | None:
    """The hash that a row must have (SHA-256), or None if the database writes no such row."""
    if row.at is None or "\n" in row.actor + row.action:
        return None
    at = row.at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    text = "\n".join((str(row.audit_id), at, row.actor, row.action, row.detail))
    return sha256(row.previous_hash + text.encode()).digest()


def verify_chain(rows: Iterable[AuditRow], expected: bytes | None = None) -> Chain:
    """Follow the chain from its first row to the first that does not fit, or to its end.

    Rows that were cut off at the end are detected only by a hash that was noted elsewhere.

    Args:
        rows: in the order of their ids.
        expected: a hash that was noted earlier and must be among the rows that fit.
    """
    chain = Chain(has_expected=expected is None)
    for row in rows:
        reason = _misfit(chain, row)
        if reason:
            return replace(chain, broken=ChainBreak(row.audit_id, reason))
        has_expected = chain.has_expected or row.hash == expected
        chain = Chain(chain.rows + 1, row.audit_id, row.hash, has_expected)
    return chain


def _misfit(chain: Chain, row: AuditRow) -> str | None:
    if row.audit_id != chain.last_id + 1:
        return f"row {chain.last_id + 1} was deleted"
    if row.hash != row_hash(row):
        return "its fields do not match its hash: it was edited"
    if row.previous_hash != chain.last_hash:
        return (
            "it was not appended to the row before it: it was inserted, or the row before it was"
            " edited or replaced"
        )
    return None
