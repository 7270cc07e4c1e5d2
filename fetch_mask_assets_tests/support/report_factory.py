"""A report in which everything holds, for tests that break one thing in it."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fetch_mask_assets.audit.chain import Chain
from fetch_mask_assets.operations.report.part import Period
from fetch_mask_assets.operations.report.parts.audit import ActionCount, AuditSummary
from fetch_mask_assets.operations.report.parts.balance import (
    Balance,
    BatchRow,
    BatchTotals,
    DayTotals,
    LoginTable,
)
from fetch_mask_assets.operations.report.parts.checks import (
    CheckEvent,
    Checks,
    CheckTally,
    DayOutcomes,
    Outcome,
    OutcomeCounts,
)
from fetch_mask_assets.operations.report.parts.erasures import ErasureCertificates, ErasureRow
from fetch_mask_assets.operations.report.parts.keys import Keys, LinkCount, ReportedKey
from fetch_mask_assets.operations.report.parts.quarantine import (
    Quarantine,
    QuarantineAccount,
    ReasonCount,
)
from fetch_mask_assets.operations.report.parts.requests import RequestRow, Requests
from fetch_mask_assets.operations.report.parts.retention import Retention
from fetch_mask_assets.operations.report.report import Report, ReportProvenance

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = date(2026, 5, 4)


def check(**counts: int) -> CheckTally:
    """A check with these outcomes; without any, one that passed once."""
    counted = OutcomeCounts(**counts) if counts else OutcomeCounts(passed=1)
    last = next((name for name in Outcome if getattr(counted, name.value)), None)
    newest = CheckEvent(NOON, last) if last else None
    days = (DayOutcomes(**asdict(counted), day=DAY),)
    return CheckTally("user_logins", "balance_holds", "It adds up.", counted, days, newest, NOON)


def logins(**changes: Any) -> LoginTable:  # noqa: ANN401 (any field)
    """A table with as many rows as are recorded, with some fields changed."""
    table = LoginTable(
        rows=7,
        loaded=7,
        replayed=0,
        erased=0,
        without_token={"ip": 0, "device_id": 0},
        non_token_rows=0,
    )
    return replace(table, **changes)


def report(provenance: Any = None, **changes: Any) -> Report:  # noqa: ANN401 (any part)
    """The report, with some parts, or its provenance, changed."""
    totals = BatchTotals(1, 10, 7, 2, 1, 9, 0)
    certificate = ErasureRow(
        "e-1", NOON, "ann", "ip", 1, "SEC-1", 2, 0, 0, 0, 0, 0, NOON, verified=True
    )
    request = RequestRow(1, NOON, "ann", "SEC-1", 2, "bob", NOON, "expired", 1)
    parts = {
        "checks": Checks((check(),), NOON),
        "balance": Balance(
            totals=totals,
            period_totals=totals,
            days=(DayTotals(1, 10, 7, 2, 1, 9, 0, DAY),),
            batches=(BatchRow(4, "run-4", NOON, 10, 7, 2, 1, 9),),
            unbalanced_batches=(),
            ledger_rows=9,
            user_logins=logins(),
        ),
        "keys": Keys((ReportedKey("ip", 123, NOON, None, 7),), (LinkCount("ip", 2, 0),)),
        "quarantine": Quarantine(
            (ReasonCount("", "not_json", 2, 2),),
            QuarantineAccount(2, 0, 0, 0, 0, 2, holds=True),
        ),
        "erasures": ErasureCertificates(1, 0, (certificate,)),
        "retention": Retention(90, 14, NOON, 0, None, DAY),
        "requests": Requests(1, 1, (request,)),
        "audit": AuditSummary(
            Chain(3, 3, b"\x01\x02"),
            was_expected=False,
            rows=3,
            rows_in_period=3,
            first_at=NOON,
            actions=(ActionCount("ann", "find", "", 3),),
            reveals={1: 1},
        ),
    }
    made = ReportProvenance("auditor", "0009", "18.0", NOON, "0009", "0.1.0", "1.13", "3.11")
    return Report(
        period=Period(NOON - timedelta(days=3), NOON + timedelta(hours=1)),
        provenance=provenance or made,
        parts={**parts, **changes},
    )
