"""The report on real runs: the outcomes of their checks, and the asset that files it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from dagster import AssetKey, DagsterRunStatus, ExecuteInProcessResult

from fetch_mask_assets.definitions import build_definitions, check_meanings
from fetch_mask_assets.defs.operations import check_history
from fetch_mask_assets.defs.operations.check_history import read_checks
from fetch_mask_assets.defs.operations.report import last_hash
from fetch_mask_assets.operations.report.checks import Outcome
from fetch_mask_assets.operations.report.part import Facts, Period, Unreadable
from fetch_mask_assets_tests.defs.conftest import Pipeline, checks, failure, metadata
from fetch_mask_assets_tests.support.logins import bodies, body

if TYPE_CHECKING:
    from collections.abc import Mapping

CANARY_IP = "203.0.113.77"
CANARY_DEVICE = "canary-device-815"


def read(pipeline: Pipeline, days: float = 1) -> Facts | Unreadable:
    now = datetime.now(UTC)
    return read_checks(pipeline.instance, check_meanings(), Period(now - timedelta(days=days), now))


def tallies(pipeline: Pipeline) -> Mapping[str, Any]:
    part = read(pipeline)
    assert not isinstance(part, Unreadable)
    return {each["name"]: each for each in part["checks"]}


def counts(check: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(check[outcome.value] for outcome in Outcome)


def execute(pipeline: Pipeline, statement: str) -> None:
    with psycopg.connect(pipeline.database.url, autocommit=True) as connection:
        connection.execute(statement.encode())


def make(pipeline: Pipeline, directory: Path) -> ExecuteInProcessResult:
    return pipeline.run(job="make_privacy_report", LOGIN_REPORTS_DIRECTORY=str(directory))


# The history of checks


def test_passed_warned_and_failed_checks_are_counted_apart(pipeline: Pipeline) -> None:
    pipeline.send(bodies(3))
    assert pipeline.run(messages=3).success
    execute(pipeline, "INSERT INTO user_logins (masked_ip) VALUES ('plain')")
    pipeline.send([body(4), "junk"])
    assert pipeline.run(messages=2).success

    found = tallies(pipeline)

    assert counts(found["balance_holds"]) == (2, 0, 0, 0, 0)
    assert counts(found["rejected_messages"]) == (1, 1, 0, 0, 0)
    assert counts(found["masked_columns_are_tokens"]) == (1, 0, 1, 0, 0)
    assert found["masked_columns_are_tokens"]["last_outcome"] == "failed"


def test_a_check_of_a_run_that_failed_before_it_was_not_evaluated(pipeline: Pipeline) -> None:
    execute(pipeline, "ALTER TABLE login_ingest.ledger RENAME app_version TO another")
    pipeline.send(bodies(2))
    assert not pipeline.run(messages=2).success

    found = tallies(pipeline)

    assert counts(found["tokens_well_formed"]) == (1, 0, 0, 0, 0)
    assert counts(found["balance_holds"]) == (0, 0, 0, 1, 0)


def test_a_check_of_a_run_that_goes_on_is_under_way(pipeline: Pipeline) -> None:
    execute(pipeline, "ALTER TABLE login_ingest.ledger RENAME app_version TO another")
    pipeline.send(bodies(2))
    run_id = pipeline.run(messages=2).run_id
    run = pipeline.instance.get_run_by_id(run_id)
    assert run
    pipeline.instance.delete_run(run_id)
    pipeline.instance.add_run(run.with_status(DagsterRunStatus.STARTED))

    assert counts(tallies(pipeline)["balance_holds"]) == (0, 0, 0, 0, 1)


def test_the_history_outlives_its_runs(pipeline: Pipeline) -> None:
    pipeline.send(bodies(2))
    pipeline.instance.delete_run(pipeline.run(messages=2).run_id)

    assert tallies(pipeline)["balance_holds"]["passed"] == 1


def test_a_history_of_many_pages_is_counted_to_its_end(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_history, "_PAGE", 1)
    began = datetime.now(UTC)
    for number in range(3):
        pipeline.send([body(number)])
        assert pipeline.run(messages=1).success

    found = tallies(pipeline)["balance_holds"]

    assert found["passed"] == 3
    assert began <= found["known_since"] < found["last_at"]


def test_a_history_beyond_the_limit_is_cut(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        pipeline.send([body(number)])
        pipeline.run(messages=1)
    monkeypatch.setattr(check_history, "MAX_EVENTS", 1)

    assert tallies(pipeline)["balance_holds"]["is_cut"]


def test_no_history_is_unreadable_and_not_good(pipeline: Pipeline) -> None:
    part = read(pipeline)

    assert isinstance(part, Unreadable)
    assert "empty" in part.unreadable


def test_a_history_that_begins_after_the_period_is_unreadable(pipeline: Pipeline) -> None:
    pipeline.send(bodies(1))
    pipeline.run(messages=1)
    now = datetime.now(UTC)
    before = Period(now - timedelta(days=9), now - timedelta(days=8))

    part = read_checks(pipeline.instance, check_meanings(), before)

    assert isinstance(part, Unreadable)
    assert f"reaches back to {now:%Y-%m-%d}" in part.unreadable


def test_a_storage_that_breaks_is_unreadable(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_named: object) -> None:
        raise OSError(CANARY_DEVICE)

    monkeypatch.setattr(
        pipeline.instance.event_log_storage, "get_asset_check_execution_history", broken
    )

    part = read(pipeline)

    assert isinstance(part, Unreadable)
    assert CANARY_DEVICE not in part.unreadable


# The asset


def test_the_asset_files_a_report_that_holds(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send([body(1, ip=CANARY_IP, device_id=CANARY_DEVICE)])
    assert pipeline.run(messages=1).success

    done = make(pipeline, tmp_path / "reports")

    assert done.success, failure(done)
    found = metadata(done, "privacy_report")
    assert (found["holds"], found["broken"], found["unreadable"]) == (True, 0, 0)
    assert checks(done)["report_holds"].passed
    texts = [Path(found[name]).read_text(encoding="utf-8") for name in ("page", "data")]
    assert json.loads(texts[1])["balance"]["totals"]["loaded"] == 1
    for text in texts:
        assert CANARY_IP not in text
        assert CANARY_DEVICE not in text
        assert pipeline.keyring.masker("ip").mask(CANARY_IP) not in text


def test_the_check_fails_when_something_does_not_hold_and_the_report_is_there(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send(bodies(2))
    assert pipeline.run(messages=2).success
    execute(pipeline, "DELETE FROM login_ingest.ledger")

    done = make(pipeline, tmp_path / "reports")

    check = checks(done)["report_holds"]
    assert done.success
    assert not check.passed
    assert "1 batch does not balance" in (check.description or "")
    assert len(list((tmp_path / "reports").iterdir())) == 2


def test_a_report_that_did_not_hold_does_not_keep_the_next_from_holding(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    assert not checks(make(pipeline, tmp_path / "reports"))["report_holds"].passed
    pipeline.send(bodies(1))
    assert pipeline.run(messages=1).success

    assert checks(make(pipeline, tmp_path / "reports"))["report_holds"].passed


def test_a_report_sees_that_the_audit_was_cut_since_the_one_before(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send(bodies(1))
    pipeline.run(messages=1)
    for _ in range(2):
        execute(pipeline, "SELECT login_ingest.record_audit('find.search', '{}')")
    assert checks(make(pipeline, tmp_path / "reports"))["report_holds"].passed
    execute(pipeline, "ALTER TABLE login_ingest.audit DISABLE TRIGGER append_only")
    execute(pipeline, "DELETE FROM login_ingest.audit WHERE audit_id = 2")

    check = checks(make(pipeline, tmp_path / "reports"))["report_holds"]

    assert not check.passed
    assert "cut off" in (check.description or "")


def test_without_a_directory_the_run_fails_by_the_settings_name(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    del tmp_path
    done = pipeline.run(job="make_privacy_report")

    assert not done.success
    assert "LOGIN_REPORTS_DIRECTORY is not set" in failure(done)


def test_a_database_that_is_down_is_in_the_report_and_fails_its_check(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN_DATABASE_URL", f"postgresql://u:{CANARY_DEVICE}@127.0.0.1:1/x")

    done = make(pipeline, tmp_path / "reports")

    assert done.success, failure(done)
    assert not checks(done)["report_holds"].passed
    assert all(CANARY_DEVICE not in path.read_text() for path in (tmp_path / "reports").iterdir())


def test_the_schedule_is_on_where_there_is_a_place_for_reports() -> None:
    on = build_definitions({"LOGIN_REPORTS_DIRECTORY": "reports"})
    off = build_definitions({})

    name = "privacy_report_nightly"
    assert on.resolve_schedule_def(name).default_status.value == "RUNNING"
    assert off.resolve_schedule_def(name).default_status.value == "STOPPED"
    assert on.resolve_assets_def("privacy_report").key == AssetKey("privacy_report")


@pytest.mark.parametrize(
    "text", [None, "", "no json", "[]", "{}", '{"audit": {"unreadable": "x"}}']
)
def test_an_earlier_report_without_a_hash_notes_none(text: str | None) -> None:
    assert last_hash(text) is None
    assert last_hash('{"audit": {"chain": {"last_hash": "0aff"}}}') == b"\x0a\xff"
