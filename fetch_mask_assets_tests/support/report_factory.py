"""A report in which everything holds, for tests that change something in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fetch_mask_assets.operations.report.part import Period
from fetch_mask_assets.operations.report.report import Report, ReportProvenance

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = date(2026, 5, 4)
OUTCOMES = ("passed", "warned", "failed", "not_evaluated", "under_way")


def check(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 (any value)
    """A check with these outcomes; without any, one that passed once."""
    counts = dict.fromkeys(OUTCOMES, 0) | (changes or {"passed": 1})
    last = next((name for name in OUTCOMES if counts[name]), None)
    return {
        "asset": "user_logins",
        "name": "balance_holds",
        **counts,
        "last_outcome": last,
        "last_at": NOON if last else None,
        "known_since": NOON,
        "is_cut": False,
    }


def checks(*given: dict[str, Any]) -> dict[str, Any]:
    """The part of some checks."""
    outcomes = {name: sum(each[name] for each in given) for name in OUTCOMES}
    return {
        "outcomes": outcomes,
        "history": {"known_since": NOON},
        "checks": list(given),
        "days": [{"day": DAY, **outcomes}],
        "meanings": [
            {"asset": each["asset"], "name": each["name"], "meaning": "It adds up."}
            for each in given
        ],
    }


def facts() -> dict[str, dict[str, Any]]:
    """The facts of each part, which a test may change."""
    sums = {"batches": 1, "received": 10, "loaded": 7, "quarantined": 2, "already_known": 1,
            "ledger_messages": 9, "unbalanced": 0}  # fmt: skip
    batch = {"batch_id": 4, "run_id": "run-4", "committed_at": NOON, "received": 10, "loaded": 7,
             "quarantined": 2, "already_known": 1, "ledger_messages": 9,
             "is_balanced": True}  # fmt: skip
    return {
        "checks": checks(check()),
        "balance": {
            "totals": dict(sums),
            "period_totals": dict(sums),
            "ledger": {"messages": 9, "recorded_messages": 9},
            "user_logins": {"rows": 7, "loaded": 7, "replayed": 0, "erased": 0, "recorded_rows": 7,
                            "missing_rows": 0, "unrecorded_rows": 0,
                            "non_token_rows": 0},
            "null_token_rows": [{"field": "ip", "rows": 0}, {"field": "device_id", "rows": 0}],
            "days": [{"day": DAY, **sums}],
            "batches": [batch],
            "unbalanced_batches": [],
        },
        "keys": {
            "registry": {"registered": 1, "in_use": 1},
            "keys": [{"keyset": "ip", "key_id": 123, "status": "in use", "first_used_at": NOON,
                      "retired_at": None, "rows": 7}],
            "links": [{"field": "ip", "tokens": 2, "digests": 0}],
        },
        "quarantine": {
            "account": {"quarantined": 2, "replayed": 0, "discarded": 0, "expired": 0, "erased": 0,
                        "waiting": 2, "is_balanced": True},
            "reasons": [{"field": "", "reason": "not_json", "messages": 2,
                         "messages_in_period": 2}],
        },
        "erasures": {
            "totals": {"erasures": 1, "unverified": 0},
            "certificates": [{"erasure_id": "e-1", "started_at": NOON, "actor": "ann", "kind": "ip",
                              "subjects": 1, "ticket": "SEC-1", "logins": 2, "links": 0,
                              "messages": 0, "verified": True}],
            "searches_after_erasure": [{"erasure_id": "e-1", "md5_matches": 0, "unmask_requests": 0,
                                        "remaining_rows": 0, "remaining_messages": 0,
                                        "unsearched_rows": 0, "unreadable_rows": 0,
                                        "unreadable_messages": 0}],
        },
        "retention": {
            "ages": {"quarantine_days": 90, "run_days": 14, "oldest_quarantined_at": NOON,
                     "overdue": 0, "last_expired_at": None, "oldest_login_day": DAY},
        },
        "requests": {
            "totals": {"requests": 1, "in_period": 1},
            "requests": [{"request_id": 1, "requested_at": NOON, "requester": "ann",
                          "ticket": "SEC-1", "tokens": 2, "state": "expired", "approver": "bob",
                          "expires_at": NOON}],
        },
        "audit": {
            "chain": {"rows": 3, "verified_rows": 3, "first_at": NOON, "last_hash": "0102",
                      "was_expected": False, "has_expected": True, "broken_at": None,
                      "broken_because": None},
            "period_totals": {"steps": 3, "refused": 0},
            "actions": [{"actor": "ann", "action": "find.search", "verdict": "",
                         "is_refused": False, "times": 3}],
            "reveals": [{"request_id": 1, "times": 1}],
        },
    }  # fmt: skip


def changed(part: str, fact: str, **values: Any) -> dict[str, Any]:  # noqa: ANN401 (any value)
    """The facts of a part with other values in a record, or in each row of a table."""
    found = facts()[part]
    for record in found[fact] if isinstance(found[fact], list) else [found[fact]]:
        record.update(values)
    return found


def report(provenance: Any = None, **changes: Any) -> Report:  # noqa: ANN401 (any part)
    """The report, with the facts of some parts, or its provenance, changed."""
    made = ReportProvenance(NOON, "auditor", "0009", "0009", "18.0", "0.1.0", "1.13", "3.11")
    return Report(
        period=Period(NOON - timedelta(days=3), NOON + timedelta(hours=1)),
        provenance=replace(made, **provenance or {}),
        facts={**facts(), **changes},
    )
