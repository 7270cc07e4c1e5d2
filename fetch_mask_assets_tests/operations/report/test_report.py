"""The findings of a report, and the texts that it withholds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fetch_mask_assets.audit.chain import Chain, ChainBreak
from fetch_mask_assets.operations.report.part import (
    WITHHELD,
    Severity,
    Unreadable,
    shown_code,
    shown_ticket,
    total,
)
from fetch_mask_assets.operations.report.parts import PARTS
from fetch_mask_assets.operations.report.parts.audit import ActionCount
from fetch_mask_assets.operations.report.parts.balance import BatchRow, BatchTotals
from fetch_mask_assets.operations.report.parts.checks import Checks
from fetch_mask_assets.operations.report.parts.keys import LinkCount, ReportedKey
from fetch_mask_assets.operations.report.report import PeriodError, Report, as_json, period_of
from fetch_mask_assets_tests.support.report_factory import NOON, check, logins, report

NAMES = [part.name for part in PARTS]
WHOLE: Any = report()
PART: Any = WHOLE.parts


def severities(made: Report) -> list[tuple[str, Severity]]:
    return [(each.part, each.severity) for each in made.findings]


def test_a_report_in_which_nothing_is_wrong_holds() -> None:
    assert WHOLE.findings == ()
    assert WHOLE.holds


@pytest.mark.parametrize("part", NAMES)
def test_a_part_that_could_not_be_read_is_never_good(part: str) -> None:
    made = report(**{part: Unreadable("the disk is gone.")})

    assert not made.holds
    assert severities(made) == [(part, Severity.UNREADABLE)]
    assert made.verdict(part) == "unreadable"
    assert as_json(made, "")[part] == {"unreadable": "the disk is gone."}


BROKEN = [
    ("checks", Checks((check(failed=1, passed=9),), NOON)),
    ("checks", Checks((check(not_evaluated=1),), NOON)),
    ("balance", replace(PART["balance"], totals=replace(PART["balance"].totals, unbalanced=1))),
    ("balance", replace(PART["balance"], ledger_rows=8)),
    ("balance", replace(PART["balance"], ledger_rows=10)),
    ("balance", replace(PART["balance"], user_logins=logins(rows=6))),
    ("balance", replace(PART["balance"], user_logins=logins(non_token_rows=1))),
    ("keys", replace(PART["keys"], keys=(ReportedKey("ip", 1, None, None, 5),))),
    (
        "quarantine",
        replace(PART["quarantine"], account=replace(PART["quarantine"].account, holds=False)),
    ),
    ("erasures", replace(PART["erasures"], unverified=1)),
    ("retention", replace(PART["retention"], overdue=1)),
    (
        "audit",
        replace(PART["audit"], chain=Chain(1, 1, b"", broken=ChainBreak(2, "it was edited"))),
    ),
    ("audit", replace(PART["audit"], chain=Chain(3, 3, b"", has_expected=False))),
]


@pytest.mark.parametrize(("part", "value"), BROKEN)
def test_a_report_with_a_broken_part_does_not_hold(part: str, value: object) -> None:
    made = report(**{part: value})

    assert not made.holds
    assert severities(made) == [(part, Severity.BROKEN)]
    assert made.verdict(part) == "broken"


NOTICES = [
    ("checks", Checks((check(warned=2),), NOON)),
    ("checks", Checks((check(passed=1, not_evaluated=3),), NOON)),
    ("balance", replace(PART["balance"], user_logins=logins(rows=8))),
    ("keys", replace(PART["keys"], keys=(ReportedKey("ip", 1, NOON, NOON, 5),))),
    ("keys", replace(PART["keys"], links=(LinkCount("ip", 0, 3),))),
    (
        "audit",
        replace(PART["audit"], actions=(ActionCount("ann", "unmask.approve", "own_request", 1),)),
    ),
]


@pytest.mark.parametrize(("part", "value"), NOTICES)
def test_a_report_with_notices_holds(part: str, value: object) -> None:
    made = report(**{part: value})

    assert made.holds
    assert severities(made) == [(part, Severity.NOTICE)]
    assert made.verdict(part) == "holds"


def test_a_check_that_was_never_planned_is_a_notice() -> None:
    never = replace(check(), counts=check(failed=0).counts, newest=None)

    [found] = report(checks=Checks((check(), never), NOON)).findings

    assert "never planned" in found.description


def test_a_period_that_was_not_counted_to_its_end_is_not_good() -> None:
    made = report(checks=Checks((replace(check(), is_cut=True),), NOON))

    assert not made.holds


@pytest.mark.parametrize("schema", ["0008", None])
def test_another_schema_than_this_release_needs_does_not_hold(schema: str | None) -> None:
    assert not report(replace(WHOLE.provenance, schema=schema)).holds


def test_a_batch_holds_when_it_adds_up_and_the_ledger_agrees() -> None:
    assert BatchRow(1, "run", NOON, 10, 7, 2, 1, 9).holds
    assert not BatchRow(1, "run", NOON, 10, 7, 2, 0, 9).holds
    assert not BatchRow(1, "run", NOON, 10, 7, 2, 1, 8).holds


def test_rows_that_a_replay_added_and_an_erasure_deleted_are_accounted_for() -> None:
    table = logins(rows=8, loaded=7, replayed=3, erased=2)

    assert (table.recorded_rows, table.missing_rows, table.unrecorded_rows) == (8, 0, 0)


def test_no_batches_sum_up_to_nothing() -> None:
    assert total(BatchTotals, []) == BatchTotals()
    assert total(BatchTotals, [BatchTotals(1, 2, 3, 4, 5, 6, 7)] * 2) == BatchTotals(
        2, 4, 6, 8, 10, 12, 14
    )


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
    assert set(NAMES) <= set(data)
    assert data["verdicts"] == dict.fromkeys(NAMES, "holds")


def test_json_holds_what_the_records_derive_from_their_fields() -> None:
    data = as_json(report(), "")

    assert data["balance"]["batches"][0]["holds"] is True
    assert data["balance"]["user_logins"]["missing_rows"] == 0
    assert data["keys"]["keys"][0]["status"] == "in use"
    assert data["provenance"]["actor"] == "auditor"


def test_the_keys_of_the_json_and_of_its_parts_are_documented() -> None:
    text = (Path(__file__).parents[3] / "docs/report.md").read_text(encoding="utf-8")
    data = as_json(report(), "")
    keys = {*data, *(key for name in (*NAMES, "period", "provenance") for key in data[name])}

    assert {key for key in keys if f"`{key}`" not in text} == set()
