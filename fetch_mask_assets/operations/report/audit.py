"""The audit: its hash chain, and the steps on record by actor, action and verdict."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from fetch_mask_assets.audit.chain import AuditRow, verify_chain
from fetch_mask_assets.operations.report.part import Facts, Period
from fetch_mask_assets.operations.unmasking.verdicts import CONSENTS, Verdict

ACTIONS = frozenset(
    {
        "erase.apply",
        "erase.begin",
        "erase.finish",
        "find.search",
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
        "unmask.approve",
        "unmask.request",
        "unmask.reveal",
        "unmask.withdraw",
        "upgrade-md5.begin",
        "upgrade-md5.begin-run",
        "upgrade-md5.drop-links",
        "upgrade-md5.finish",
        "upgrade-md5.finish-run",
        "upgrade-md5.record",
    }
)
"""The actions that the product records: an operation and a step. Any other text is free text."""

OTHER_ACTION = "(another action)"
UNKNOWN_VERDICT = "(unknown)"

_REVEAL = "unmask.reveal"

# Expiring the quarantine has other verdicts than unmasking.
_EXPIRE = "quarantine.expire"
_EXPIRE_CONSENT = "expired"
_EXPIRE_REFUSAL = "retention_too_short"
_VERDICTS = frozenset({*Verdict, _EXPIRE_REFUSAL})


def summarize_audit(
    rows: Iterable[AuditRow], period: Period, expected: bytes | None = None
) -> Facts:
    """Verifies the whole chain and counts the period's rows, those after a break too.

    Args:
        rows: in the order of their ids; read once, none is kept.
        period: the period of the counted steps.
        expected: a hash that was noted earlier and must be in the chain.

    Returns:
        The record of the chain, the steps by actor, action and verdict, and the reveals by request
        over the whole audit; never a detail.
    """
    counting = _Counting(period)
    counted = counting.through(rows)
    chain = verify_chain(counted, expected)
    for _ in counted:
        pass
    actions = [_action(*step, times) for step, times in sorted(counting.actions.items())]
    return {
        "chain": {
            "rows": counting.rows,
            "verified_rows": chain.rows,
            "first_at": counting.first_at,
            "last_hash": chain.last_hash.hex(),
            "was_expected": expected is not None,
            "has_expected": chain.has_expected,
            "broken_at": chain.broken and chain.broken.audit_id,
            "broken_because": chain.broken and chain.broken.reason,
        },
        "period_totals": {
            "steps": counting.actions.total(),
            "refused": sum(each["times"] for each in actions if each["is_refused"]),
        },
        "actions": actions,
        "reveals": [
            {"request_id": request, "times": times}
            for request, times in sorted(counting.reveals.items())
        ],
    }


def _action(actor: str, action: str, verdict: str, times: int) -> dict[str, Any]:
    consents = {_EXPIRE_CONSENT} if action == _EXPIRE else CONSENTS
    is_refused = verdict not in {"", *consents}
    return {
        "actor": actor,
        "action": action,
        "verdict": verdict,
        "is_refused": is_refused,
        "times": times,
    }


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
