"""What of a report does not hold, what could not be read, and what is never shown."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fetch_mask_assets.audit.chain import Chain, ChainBreak
from fetch_mask_assets.operations.report.audit_summary import ActionCount
from fetch_mask_assets.operations.report.report import (
    PARTS,
    WITHHELD,
    BatchRow,
    BatchSum,
    ChecksPart,
    LinkCount,
    PeriodError,
    Report,
    ReportedKey,
    Severity,
    TableSum,
    Unreadable,
    as_json,
    findings,
    holds,
    period_of,
    shown_code,
    shown_ticket,
    summed,
)
from fetch_mask_assets_tests.support.report_factory import NOON, check, report

WHOLE: Any = report()


def weights(made: Report) -> list[tuple[str, Severity]]:
    return [(each.part, each.severity) for each in findings(made)]


def test_a_report_in_which_nothing_is_wrong_holds() -> None:
    assert findings(WHOLE) == ()
    assert holds(WHOLE)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_could_not_be_read_is_never_good(part: str) -> None:
    made = report(**{part: Unreadable("the disk is gone.")})

    assert not holds(made)
    assert weights(made) == [(part, Severity.UNREADABLE)]
    assert as_json(made, "")[part] == {"unreadable": "the disk is gone."}


BROKEN = [
    ("checks", ChecksPart((check(failed=1, passed=9),), NOON)),
    ("checks", ChecksPart((check(not_evaluated=1),), NOON)),
    ("balance", replace(WHOLE.balance, whole=replace(WHOLE.balance.whole, unbalanced=1))),
    ("balance", replace(WHOLE.balance, ledger_rows=8)),
    ("balance", replace(WHOLE.balance, ledger_rows=10)),
    ("balance", replace(WHOLE.balance, table=TableSum(6, 7, 0, 0, 0, 0, 0))),
    ("balance", replace(WHOLE.balance, table=TableSum(7, 7, 0, 0, 0, 0, 1))),
    ("keys", replace(WHOLE.keys, keys=(ReportedKey("ip", 1, None, None, 5),))),
    ("quarantine", replace(WHOLE.quarantine, holds=False)),
    ("erasures", replace(WHOLE.erasures, unverified=1)),
    ("retention", replace(WHOLE.retention, overdue=1)),
    ("audit", replace(WHOLE.audit, chain=Chain(1, 1, b"", broken=ChainBreak(2, "it was edited")))),
    ("audit", replace(WHOLE.audit, chain=Chain(3, 3, b"", has_expected=False))),
]


@pytest.mark.parametrize(("part", "value"), BROKEN)
def test_what_is_broken_does_not_hold(part: str, value: object) -> None:
    made = report(**{part: value})

    assert not holds(made)
    assert weights(made) == [(part, Severity.BROKEN)]


TO_KNOW = [
    ("checks", ChecksPart((check(warned=2),), NOON)),
    ("checks", ChecksPart((check(passed=1, not_evaluated=3),), NOON)),
    ("balance", replace(WHOLE.balance, table=TableSum(8, 7, 0, 0, 0, 0, 0))),
    ("keys", replace(WHOLE.keys, keys=(ReportedKey("ip", 1, NOON, NOON, 5),))),
    ("keys", replace(WHOLE.keys, links=(LinkCount("ip", 0, 3),))),
    (
        "audit",
        replace(WHOLE.audit, actions=(ActionCount("ann", "unmask.approve", "own_request", 1),)),
    ),
]


@pytest.mark.parametrize(("part", "value"), TO_KNOW)
def test_what_is_only_to_know_is_said_and_holds(part: str, value: object) -> None:
    made = report(**{part: value})

    assert holds(made)
    assert weights(made) == [(part, Severity.NOTICE)]


def test_a_check_that_was_never_planned_is_said() -> None:
    never = replace(check(), counts=check(failed=0).counts, newest=None)

    [found] = findings(report(checks=ChecksPart((check(), never), NOON)))

    assert "never planned" in found.description


def test_a_period_that_was_not_counted_to_its_end_is_not_good() -> None:
    made = report(checks=ChecksPart((replace(check(), is_cut=True),), NOON))

    assert not holds(made)


@pytest.mark.parametrize("schema", ["0008", None])
def test_another_schema_than_this_release_needs_does_not_hold(schema: str | None) -> None:
    assert not holds(report(made=replace(WHOLE.made, schema=schema)))


def test_a_batch_holds_when_it_adds_up_and_the_ledger_agrees() -> None:
    assert BatchRow(1, "run", NOON, 10, 7, 2, 1, 9).holds
    assert not BatchRow(1, "run", NOON, 10, 7, 2, 0, 9).holds
    assert not BatchRow(1, "run", NOON, 10, 7, 2, 1, 8).holds


def test_rows_that_a_replay_added_and_an_erasure_deleted_are_accounted_for() -> None:
    table = TableSum(rows=8, loaded=7, replayed=3, erased=2, without_ip=0,
                     without_device_id=0, untokened=0)  # fmt: skip

    assert (table.accounted, table.missing, table.foreign) == (8, 0, 0)


def test_no_batches_sum_up_to_nothing() -> None:
    assert summed([]) == BatchSum()
    assert summed([BatchSum(1, 2, 3, 4, 5, 6, 7)] * 2) == BatchSum(2, 4, 6, 8, 10, 12, 14)


def test_a_period_is_so_many_days_that_end_now_unless_it_is_named() -> None:
    week = timedelta(days=7)

    assert period_of(None, None, NOON, 7).since == NOON - week
    assert period_of(None, NOON - week, NOON, 7).since == NOON - 2 * week
    assert period_of(NOON - week, None, NOON, 1).until == NOON


@pytest.mark.parametrize(("since", "until"), [(NOON, NOON), (None, NOON + timedelta(seconds=1))])
def test_a_period_that_is_none_is_refused(since: datetime | None, until: datetime) -> None:
    with pytest.raises(PeriodError):
        period_of(since, until, NOON, 7)


@pytest.mark.parametrize("ticket", ["SEC-12", "INC0012345", "#77", "A1"])
def test_a_ticket_that_is_a_reference_is_shown(ticket: str) -> None:
    assert shown_ticket(ticket) == ticket


@pytest.mark.parametrize(
    "text",
    ["", "203.0.113.77", "123-45-6789", "123456789", "see mail", "SEC-12\n", "SEC-12345678", "sec"],
)
def test_free_text_in_the_place_of_a_ticket_is_withheld(text: str) -> None:
    assert shown_ticket(text) == WITHHELD


@pytest.mark.parametrize("text", [None, "", "203.0.113.77", "Not_Json", "a" * 41, "<script>"])
def test_what_is_no_code_is_withheld(text: str | None) -> None:
    assert shown_code(text) == WITHHELD
    assert shown_code("not_json") == "not_json"


def test_json_holds_what_the_page_holds_and_its_verdict() -> None:
    data = json.loads(json.dumps(as_json(report(), "limits")))

    assert (data["holds"], data["findings"], data["not_protected"]) == (True, [], "limits")
    assert data["audit"]["chain"]["last_hash"] == "0102"
    assert datetime.fromisoformat(data["period"]["since"]).tzinfo == UTC
    assert set(PARTS) <= set(data)
