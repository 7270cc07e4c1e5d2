"""The audit: its hash chain, and the steps on record by actor, action and verdict."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from fetch_mask_assets.audit.chain import AuditRow, Chain, verify_chain
from fetch_mask_assets.operations.report.part import (
    Block,
    Judgement,
    Part,
    Period,
    broken,
    listing,
    notice,
    table,
)
from fetch_mask_assets.operations.unmasking.requests import CONSENTS, Verdict

ACTIONS = frozenset(
    {
        "erase",
        "erase.begin",
        "erase.finish",
        "find",
        "keys.init",
        "keys.restore",
        "keys.retire",
        "keys.rotate",
        "links.write",
        "quarantine.discard",
        "quarantine.expire",
        "quarantine.list",
        "quarantine.replay",
        "quarantine.show",
        "remask.begin",
        "remask.end",
        "replace-digests.begin",
        "replace-digests.end",
        "replace-digests.note",
        "unmask.approve",
        "unmask.request",
        "unmask.reveal",
        "unmask.withdraw",
        "upgrade-md5 drop-links",
    }
)
"""The actions that the product records. Any other is free text, which may hold anything."""

OTHER_ACTION = "(another action)"
UNKNOWN_VERDICT = "(unknown)"

_REVEAL = "unmask.reveal"

# Expiring the quarantine has other verdicts than unmasking.
_EXPIRE = "quarantine.expire"
_EXPIRE_CONSENT = "expired"
_EXPIRE_REFUSAL = "retention_too_short"
_VERDICTS = frozenset({*Verdict, _EXPIRE_REFUSAL})


@dataclass(frozen=True, slots=True, order=True)
class ActionCount:
    """The number of times of an actor's action, with the verdict if the database gave one."""

    actor: str
    action: str
    verdict: str
    times: int

    @property
    def is_refusal(self) -> bool:
        """Whether the database refused it."""
        consents = {_EXPIRE_CONSENT} if self.action == _EXPIRE else CONSENTS
        return self.verdict not in {"", *consents}


@dataclass(frozen=True, slots=True)
class AuditSummary(Part):
    """The state of the whole audit, and its steps in a period; never a detail.

    `reveals` counts, by request and over the whole audit, how often originals were revealed.
    """

    name: ClassVar[str] = "audit"
    title: ClassVar[str] = "Audit"
    promise: ClassVar[str] = "No row of the audit was edited, inserted or deleted."
    about: ClassVar[str] = (
        "Each row of the audit holds a hash over itself and the row before it. Every hash was"
        " computed anew, outside the database. Rows that were cut off at the end are found only by"
        " a hash that was noted earlier."
    )

    chain: Chain
    was_expected: bool
    rows: int
    rows_in_period: int
    first_at: datetime | None
    actions: tuple[ActionCount, ...]
    reveals: Mapping[int, int]

    def figure(self) -> str:
        """Return the numbers that matter most."""
        return f"{self.chain.rows:,} of {self.rows:,} rows verified"

    def judgements(self) -> Iterator[Judgement]:
        """Return the conditions of findings."""
        first = self.chain.broken
        yield broken(
            first, f"the audit is broken at row {first.audit_id}: {first.why}." if first else ""
        )
        yield broken(
            not self.chain.has_expected,
            "the hash that was noted earlier is not in the audit: rows were cut off at its end, or"
            " the chain was computed anew.",
        )
        refused = sum(each.times for each in self.actions if each.is_refusal)
        yield notice(refused, f"{refused} steps were refused in the period.")

    def details(self) -> Iterator[Block]:
        """Return the tables behind the figure."""
        noted = "found" if self.chain.has_expected else "NOT found"
        values = {
            "Rows": self.rows,
            "Rows that fit, from the first": self.chain.rows,
            "First row": self.first_at,
            "Hash that was noted earlier": noted if self.was_expected else "none was given",
            "Last hash": self.chain.last_hash.hex(),
        }
        yield listing("The chain", values)
        yield from table("Steps in the period", self.actions)


def summarize_audit(
    rows: Iterable[AuditRow], period: Period, expected: bytes | None = None
) -> AuditSummary:
    """Verifies the whole chain and counts the period's rows, those after a break too.

    Args:
        rows: in the order of their ids; read once, none is kept.
        period: the period of the counted steps.
        expected: a hash that was noted earlier and must be in the chain.
    """
    counting = _Counting(period)
    counted = counting.through(rows)
    chain = verify_chain(counted, expected)
    for _ in counted:
        pass
    actions = (ActionCount(*step, times) for step, times in counting.actions.items())
    return AuditSummary(
        chain=chain,
        was_expected=expected is not None,
        rows=counting.rows,
        rows_in_period=counting.actions.total(),
        first_at=counting.first_at,
        actions=tuple(sorted(actions)),
        reveals=dict(counting.reveals),
    )


class _Counting:
    """Counts rows as they pass."""

    def __init__(self, period: Period) -> None:
        self._period = period
        self.rows = 0
        self.first_at: datetime | None = None
        self.actions: Counter[tuple[str, str, str]] = Counter()
        self.reveals: Counter[int] = Counter()

    def through(self, rows: Iterable[AuditRow]) -> Iterator[AuditRow]:
        for row in rows:
            self._count(row)
            yield row

    def _count(self, row: AuditRow) -> None:
        self.rows += 1
        self.first_at = self.first_at or row.at
        detail = _detail(row)
        verdict = _verdict(detail)
        request = detail.get("request")
        if row.action == _REVEAL and verdict == Verdict.REVEALED and isinstance(request, int):
            self.reveals[request] += 1
        # A row without a time belongs to no period, so it is counted in each.
        if row.at is None or self._period.since <= row.at < self._period.until:
            action = row.action if row.action in ACTIONS else OTHER_ACTION
            self.actions[(row.person, action, verdict)] += 1


def _detail(row: AuditRow) -> dict[str, object]:
    try:
        detail = json.loads(row.detail)
    except (ValueError, RecursionError):
        return {}
    return detail if isinstance(detail, dict) else {}


def _verdict(detail: dict[str, object]) -> str:
    verdict = detail.get("verdict")
    if verdict is None:
        return ""
    return verdict if isinstance(verdict, str) and verdict in _VERDICTS else UNKNOWN_VERDICT
