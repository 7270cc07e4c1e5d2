"""The audit in a report: counted steps, and no free text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fetch_mask_assets
from fetch_mask_assets.audit.chain import AuditRow, row_hash
from fetch_mask_assets.operations.report.audit import (
    ACTIONS,
    OTHER_ACTION,
    UNKNOWN_VERDICT,
    summarize_audit,
)
from fetch_mask_assets.operations.report.part import Facts, Period

CANARY = "203.0.113.77"
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def audit(*steps: tuple[str, str, object], at: datetime = NOON) -> list[AuditRow]:
    """A whole chain of rows: actor, action, detail."""
    rows: list[AuditRow] = []
    for number, (actor, action, detail) in enumerate(steps, start=1):
        before = rows[-1].hash if rows else b""
        text = detail if isinstance(detail, str) else json.dumps(detail)
        row = AuditRow(number, at, actor, action, text, before, b"")
        rows.append(replace(row, hash=row_hash(row) or b""))
    return rows


def summary(rows: list[AuditRow], expected: bytes | None = None) -> Facts:
    return summarize_audit(rows, Period(NOON - DAY, NOON + DAY), expected)


def test_steps_are_counted_by_actor_action_and_verdict() -> None:
    rows = audit(
        ("ann", "unmask.request", {"verdict": "requested", "request": 1}),
        ("ann", "unmask.approve", {"verdict": "own_request", "request": 1}),
        ("ann", "unmask.approve", {"verdict": "own_request", "request": 1}),
        ("bob", "find.search", {"field": "ip"}),
    )

    found = summary(rows)

    assert found["chain"]["broken_at"] is None
    assert [tuple(each.values()) for each in found["actions"]] == [
        ("ann", "unmask.approve", "own_request", True, 2),
        ("ann", "unmask.request", "requested", False, 1),
        ("bob", "find.search", "", False, 1),
    ]
    assert found["period_totals"] == {"steps": 4, "refused": 2}


def test_reveals_are_counted_by_request_over_the_whole_audit() -> None:
    rows = audit(
        ("ann", "unmask.reveal", {"verdict": "revealed", "request": 4}),
        ("ann", "unmask.reveal", {"verdict": "expired", "request": 4}),
        ("ann", "unmask.reveal", {"verdict": "revealed", "request": 4}),
        at=NOON - 9 * DAY,
    )

    found = summary(rows)

    assert found["reveals"] == [{"request_id": 4, "times": 2}]
    assert (found["chain"]["rows"], found["actions"]) == (3, [])
    assert found["period_totals"]["steps"] == 0


def test_rows_after_a_break_are_counted() -> None:
    rows = audit(("ann", "find.search", {}), ("ann", "find.search", {}), ("bob", "find.search", {}))
    rows[1] = replace(rows[1], detail='{"edited": true}')

    found = summary(rows)

    chain = found["chain"]
    assert (chain["broken_at"], chain["verified_rows"], chain["rows"]) == (2, 1, 3)
    assert sum(each["times"] for each in found["actions"]) == 3


def test_free_text_of_an_action_a_verdict_or_a_detail_is_not_repeated() -> None:
    rows = audit(
        ("ann", f"looked at {CANARY}", {}),
        ("ann", "unmask.approve", {"verdict": CANARY}),
        ("ann", "find.search", {"field": CANARY}),
        ("ann", "find.search", f"no json {CANARY}"),
        ("ann", "find.search", f'["{CANARY}"]'),
        ("ann", "unmask.reveal", {"verdict": "revealed", "request": CANARY}),
    )

    found = summary(rows)

    assert CANARY not in repr(found)
    assert {each["action"] for each in found["actions"]} >= {OTHER_ACTION}
    assert {each["verdict"] for each in found["actions"]} >= {UNKNOWN_VERDICT}


def test_an_unknown_verdict_counts_as_a_refusal() -> None:
    [found] = summary(audit(("ann", "unmask.approve", {"verdict": "new"})))["actions"]

    assert found["is_refused"]


def test_a_row_without_a_time_is_in_every_period() -> None:
    rows = [replace(audit(("ann", "find.search", {}))[0], at=None)]

    assert summary(rows)["period_totals"]["steps"] == 1


def test_a_noted_hash_is_searched_in_the_chain() -> None:
    rows = audit(("ann", "find.search", {}), ("ann", "find.search", {}))

    assert summary(rows, rows[1].hash)["chain"]["has_expected"]
    assert not summary(rows[:1], rows[1].hash)["chain"]["has_expected"]
    assert not summary(rows)["chain"]["was_expected"]
    assert summary(rows, b"x")["chain"]["was_expected"]


def test_expiring_the_quarantine_has_other_verdicts_than_unmasking() -> None:
    rows = audit(
        ("ann", "quarantine.expire", {"verdict": "expired"}),
        ("ann", "quarantine.expire", {"verdict": "retention_too_short"}),
        ("ann", "unmask.reveal", {"verdict": "expired"}),
        ("ann", "unmask.withdraw", {"verdict": "withdrawn"}),
    )

    refused = [
        (each["action"], each["verdict"]) for each in summary(rows)["actions"] if each["is_refused"]
    ]

    assert refused == [("quarantine.expire", "retention_too_short"), ("unmask.reveal", "expired")]


def test_every_action_is_an_operation_and_a_step() -> None:
    assert [each for each in ACTIONS if not re.fullmatch(r"[a-z0-9-]+\.[a-z-]+", each)] == []


def test_every_recorded_action_is_listed() -> None:
    package = Path(fetch_mask_assets.__file__).parent
    recorded = re.compile(
        r"""record_audit\(\s*'([^']+)'|record\(connection, "([^"]+)"|_record\("([^"]+)\""""
    )
    found = {
        next(filter(None, names))
        for path in (*package.rglob("*.py"), *package.rglob("*.sql"))
        for names in recorded.findall(path.read_text(encoding="utf-8"))
    }

    assert {"unmask.withdraw", "upgrade-md5.begin-run"} <= found
    assert found <= ACTIONS
