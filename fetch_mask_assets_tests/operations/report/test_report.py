"""The findings of a report, and the texts that it withholds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fetch_mask_assets.operations.report.part import (
    WITHHELD,
    Part,
    Severity,
    Unreadable,
    shown_code,
    shown_ticket,
)
from fetch_mask_assets.operations.report.parts import PARTS
from fetch_mask_assets.operations.report.report import PeriodError, Report, as_json, period_of
from fetch_mask_assets_tests.support.report_factory import (
    NOON,
    changed,
    check,
    checks,
    report,
)

NAMES = [part.name for part in PARTS]


def severities(made: Report) -> list[tuple[str, Severity]]:
    return [(each.part, each.severity) for each in made.findings]


def test_a_report_in_which_nothing_is_wrong_holds() -> None:
    assert report().findings == ()
    assert report().holds


@pytest.mark.parametrize("part", NAMES)
def test_a_part_that_could_not_be_read_is_never_good(part: str) -> None:
    made = report(**{part: Unreadable("the disk is gone.")})

    assert not made.holds
    assert severities(made) == [(part, Severity.UNREADABLE)]
    assert made.verdict(part) == "unreadable"
    assert as_json(made, "")[part] == {"unreadable": "the disk is gone."}


BROKEN = [
    ("checks", checks(check(failed=1, passed=9))),
    ("checks", checks(check(not_evaluated=1))),
    ("balance", changed("balance", "totals", unbalanced=1)),
    ("balance", changed("balance", "ledger", messages=8)),
    ("balance", changed("balance", "ledger", messages=10)),
    ("balance", changed("balance", "user_logins", missing_rows=1)),
    ("balance", changed("balance", "user_logins", non_token_rows=1)),
    ("keys", changed("keys", "keys", status="not registered", rows=5)),
    ("quarantine", changed("quarantine", "account", is_balanced=False)),
    ("erasures", changed("erasures", "totals", unverified=1)),
    ("retention", changed("retention", "ages", overdue=1)),
    ("audit", changed("audit", "chain", broken_at=2, broken_because="it was edited")),
    ("audit", changed("audit", "chain", has_expected=False)),
]


@pytest.mark.parametrize(("part", "value"), BROKEN)
def test_a_report_with_a_broken_part_does_not_hold(part: str, value: object) -> None:
    made = report(**{part: value})

    assert not made.holds
    assert severities(made) == [(part, Severity.BROKEN)]
    assert made.verdict(part) == "broken"


NOTICES = [
    ("checks", checks(check(warned=2))),
    ("checks", checks(check(passed=1, not_evaluated=3))),
    ("balance", changed("balance", "user_logins", unrecorded_rows=1)),
    ("keys", changed("keys", "keys", status="retired", retired_at=NOON, rows=5)),
    ("keys", changed("keys", "links", digests=3)),
    ("audit", changed("audit", "period_totals", refused=1)),
]


@pytest.mark.parametrize(("part", "value"), NOTICES)
def test_a_report_with_notices_holds(part: str, value: object) -> None:
    made = report(**{part: value})

    assert made.holds
    assert severities(made) == [(part, Severity.NOTICE)]
    assert made.verdict(part) == "holds"


@pytest.mark.parametrize(
    ("times", "expected"), [(1, "warned 1 time."), (2, "warned 2 times."), (1_200, "1,200 times.")]
)
def test_a_count_has_the_number_of_its_noun(times: int, expected: str) -> None:
    [found] = report(checks=checks(check(warned=times))).findings

    assert found.description.endswith(expected)


def test_a_check_that_was_never_planned_is_a_notice() -> None:
    [found] = report(checks=checks(check(), check(passed=0))).findings

    assert "never planned" in found.description


def test_a_period_that_was_not_counted_to_its_end_is_not_good() -> None:
    assert not report(checks=checks(check() | {"is_cut": True})).holds


@pytest.mark.parametrize("schema", ["0008", None])
def test_another_schema_than_this_release_needs_does_not_hold(schema: str | None) -> None:
    assert not report({"schema": schema}).holds


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_fact_that_is_declared_is_in_a_report(part: Part) -> None:
    facts = report().facts[part.name]

    assert not isinstance(facts, Unreadable)
    assert {*part.records, *part.tables} <= {*facts}


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
    assert data["provenance"]["actor"] == "auditor"
    assert datetime.fromisoformat(data["period"]["since"]).tzinfo == UTC
    assert set(NAMES) <= set(data)
    assert data["verdicts"] == dict.fromkeys(NAMES, "holds")


def test_the_keys_of_the_json_and_of_its_parts_are_documented() -> None:
    text = (Path(__file__).parents[3] / "docs/report.md").read_text(encoding="utf-8")
    data = as_json(report(), "")
    keys = {*data, *(key for name in (*NAMES, "period", "provenance") for key in data[name])}

    assert {key for key in keys if f"`{key}`" not in text} == set()
