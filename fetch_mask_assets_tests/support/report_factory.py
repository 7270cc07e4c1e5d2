"""A report in which everything holds, for tests that break one thing in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fetch_mask_assets.audit.chain import Chain
from fetch_mask_assets.operations.report.audit_summary import ActionCount, AuditSummary
from fetch_mask_assets.operations.report.check_history import (
    CheckEvent,
    CheckTally,
    Outcome,
    OutcomeCounts,
)
from fetch_mask_assets.operations.report.report import (
    BalancePart,
    BatchRow,
    BatchSum,
    ChecksPart,
    ErasureRow,
    ErasuresPart,
    KeysPart,
    LinkCount,
    Period,
    QuarantinePart,
    ReasonCount,
    Report,
    ReportedKey,
    ReportProvenance,
    RequestRow,
    RequestsPart,
    RetentionPart,
    Space,
    StrengthPart,
    TableSum,
)

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = date(2026, 5, 4)


def check(**counts: int) -> CheckTally:
    """A check with these outcomes; without any, one that passed once."""
    counted = OutcomeCounts(**counts) if counts else OutcomeCounts(passed=1)
    last = next((name for name in Outcome if getattr(counted, name.value)), None)
    newest = CheckEvent(NOON, last) if last else None
    days = ((DAY, counted),)
    return CheckTally("user_logins", "balance_holds", "It adds up.", counted, days, newest, NOON)


def report(**changes: Any) -> Report:  # noqa: ANN401 (any part)
    """The report, with some parts changed."""
    sum_ = BatchSum(1, 10, 7, 2, 1, 9, 0)
    line = BatchRow(4, "run-4", NOON, 10, 7, 2, 1, 9)
    whole = Report(
        made=ReportProvenance(NOON, "auditor", "0.1.0", "0009", "0009", "18.0", "1.13", "3.11"),
        period=Period(NOON - timedelta(days=3), NOON + timedelta(hours=1)),
        checks=ChecksPart((check(),), NOON),
        balance=BalancePart(
            whole=sum_,
            in_period=sum_,
            days=((DAY, sum_),),
            batches=(line,),
            unbalanced=(),
            ledger_rows=9,
            table=TableSum(7, 7, 0, 0, 0, 0, 0),
        ),
        keys=KeysPart((ReportedKey("ip", 123, NOON, None, 7),), (LinkCount("ip", 2, 0),)),
        quarantine=QuarantinePart(
            (ReasonCount("", "not_json", 2, 2),), 2, 0, 0, 0, 0, 2, holds=True
        ),
        erasures=ErasuresPart(
            1,
            0,
            (
                ErasureRow(
                    "e-1", NOON, "ann", "ip", 1, "SEC-1", 2, 0, 0, 0, 0, 0, NOON, verified=True
                ),
            ),
        ),
        retention=RetentionPart(90, 14, NOON, 0, None, DAY),
        requests=RequestsPart(
            1,
            1,
            (RequestRow(1, NOON, "ann", "SEC-1", 2, "bob", NOON, "expired", 1),),
        ),
        audit=AuditSummary(
            Chain(3, 3, b"\x01\x02"),
            was_expected=False,
            rows=3,
            rows_in_period=3,
            first_at=NOON,
            actions=(ActionCount("ann", "find", "", 3),),
            reveals={1: 1},
        ),
        strength=StrengthPart(0.5, 2, (Space("ipv4", 2**32, 10_000_000.0),)),
    )
    return replace(whole, **changes)
