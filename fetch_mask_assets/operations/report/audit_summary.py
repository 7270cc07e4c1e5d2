"""Who did what, by the audit: counts by person, action and verdict, and never a detail."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from fetch_mask_assets.audit.chain import AuditRow, Chain, verify_chain
from fetch_mask_assets.operations.unmasking.verdicts import CONSENTS, Verdict

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
        "remask.finish",
        "upgrade-md5.begin",
        "upgrade-md5.finish",
        "upgrade-md5.record",
        "unmask.approve",
        "unmask.request",
        "unmask.reveal",
        "unmask.withdraw",
        "upgrade-md5.drop-links",
    }
)
"""The actions that the product records. Any other is free text, which may hold anything."""

OTHER_ACTION = "(another action)"
UNKNOWN_VERDICT = "(unknown)"

_REVEAL = "unmask.reveal"

# The verdicts on expiring the quarantine are words of its own.
_EXPIRE = "quarantine.expire"
_EXPIRE_CONSENT = "expired"
_EXPIRE_REFUSAL = "retention_too_short"
_VERDICTS = frozenset({*Verdict, _EXPIRE_REFUSAL})


@dataclass(frozen=True, slots=True, order=True)
class ActionCount:
    """How often a person did something, with the verdict where the database gave one."""

    person: str
    action: str
    verdict: str
    times: int

    @property
    def is_refusal(self) -> bool:
        """Whether the database refused it."""
        consents = {_EXPIRE_CONSENT} if self.action == _EXPIRE else CONSENTS
        return self.verdict not in {"", *consents}


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """The state of the audit, and what it holds of a period.

    `reveals` counts, by request and over the whole audit, how often originals were revealed.
    """

    chain: Chain
    was_expected: bool
    rows: int
    rows_in_period: int
    first_at: datetime | None
    actions: tuple[ActionCount, ...]
    reveals: dict[int, int]


def summarize_audit(
    rows: Iterable[AuditRow], since: datetime, until: datetime, expected: bytes | None = None
) -> AuditSummary:
    """Verifies the whole chain and counts the period's rows, those after a break too.

    Args:
        rows: in the order of their ids; read once, none is kept.
        since: the first moment of the period.
        until: the moment after it.
        expected: a hash that was noted earlier and must be in the chain.
    """
    counting = _Counting(since, until)
    counted = counting.through(rows)
    chain = verify_chain(counted, expected)
    for _ in counted:
        pass
    actions = (ActionCount(*what, times) for what, times in counting.actions.items())
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

    def __init__(self, since: datetime, until: datetime) -> None:
        self._since, self._until = since, until
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
        # A row that has no time belongs to no period, so it is shown in each.
        if row.at is None or self._since <= row.at < self._until:
            action = row.action if row.action in ACTIONS else OTHER_ACTION
            self.actions[(row.actor, action, verdict)] += 1


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
