"""The views as assets: the figures that a run records, and their checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from dagster import AssetCheckSeverity, AssetKey

from fetch_mask_assets import settings
from fetch_mask_assets.definitions import build_definitions, defs
from fetch_mask_assets.defs.operations.analysis import analyst_database
from fetch_mask_assets.operations.analysis.views import ANALYSIS_VIEWS, CHECK
from fetch_mask_assets_tests.defs.conftest import metadata
from fetch_mask_assets_tests.support.kinds import BOTH_KINDS, PARTITIONED_ONLY
from fetch_mask_assets_tests.support.logins import body
from fetch_mask_assets_tests.support.people import person

if TYPE_CHECKING:
    from fetch_mask_assets_tests.defs.conftest import Pipeline

VIEWS = {view.name for view in ANALYSIS_VIEWS}
IP = "203.0.113.99"
BATCH = [body(1, ip=IP), body(2, ip=IP, device_id="device-00000001"), body(1, ip=IP), body(3)]


@BOTH_KINDS
def test_a_run_records_the_figures_of_the_views_and_their_checks_pass(pipeline: Pipeline) -> None:
    pipeline.send(BATCH)
    assert pipeline.run(messages=4).success
    result = pipeline.run(job="analyse_logins")
    assert result.success
    assert {
        (each.asset_key.to_user_string(), each.check_name, each.passed)
        for each in result.get_asset_check_evaluations()
    } == {(name, CHECK, True) for name in VIEWS}
    ips = metadata(result, "repeated_ips")
    assert (ips["dagster/row_count"], ips["logins"], ips["max_users"]) == (1, 3, 2)
    devices = metadata(result, "repeated_devices")
    assert (devices["rows"], devices["logins"], devices["with_several_users"]) == (1, 3, 1)
    assert metadata(result, "users_sharing_devices")["rows"] == 1
    logins = metadata(result, "readable_logins")
    assert (logins["rows"], logins["versions"], logins["misread_versions"]) == (4, 4, 0)


def test_an_empty_table_is_analysed_too(pipeline: Pipeline) -> None:
    result = pipeline.run(job="analyse_logins")
    assert result.success
    assert all(each.passed for each in result.get_asset_check_evaluations())


def test_no_value_and_no_token_is_recorded(pipeline: Pipeline) -> None:
    pipeline.send(BATCH)
    pipeline.run(messages=4)
    events = repr(pipeline.run(job="analyse_logins").all_events)
    [(token,)] = pipeline.database.query("SELECT masked_ip FROM login_ingest.repeated_ips")
    for secret in (IP, token, "device-00000001", "user-1"):
        assert secret not in events


def test_the_check_of_a_wrong_view_fails_and_names_the_numbers(pipeline: Pipeline) -> None:
    pipeline.send(BATCH)
    pipeline.run(messages=4)
    with psycopg.connect(pipeline.database.url) as connection:
        connection.execute(
            "CREATE OR REPLACE VIEW login_ingest.readable_logins AS"
            " SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version,"
            " '9.9.9' AS version, create_date FROM login_ingest.user_logins_linked LIMIT 2"
        )
    result = pipeline.run(job="analyse_logins")
    wrong = [each for each in result.get_asset_check_evaluations() if not each.passed]
    assert [each.asset_key for each in wrong] == [AssetKey("readable_logins")]
    assert wrong[0].severity is AssetCheckSeverity.ERROR
    assert "misread_versions, rows" in (wrong[0].description or "")
    assert "Do not use" in (wrong[0].description or "")


def test_it_runs_as_an_analyst_without_the_right_to_write(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with person(pipeline.database.url, "login_ingest_analyst") as eve:
        monkeypatch.setenv(settings.ANALYST_DATABASE_URL, eve.url)
        result = pipeline.run(job="analyse_logins", LOGIN_ANALYST_DATABASE_URL=eve.url)
        assert result.success


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({settings.ANALYST_DATABASE_URL: "y"}, settings.ANALYST_DATABASE_URL),
        ({settings.ANALYST_DATABASE_URL: " "}, settings.DATABASE_URL),
        ({}, settings.DATABASE_URL),
    ],
)
def test_the_analysts_url_is_the_loaders_unless_it_is_set(
    environ: dict[str, str], expected: str
) -> None:
    resource = analyst_database(environ)
    assert resource.model_dump()["url"] == expected
    assert "postgresql" not in repr(resource)


def test_each_view_is_an_asset_with_columns_group_owner_and_one_check() -> None:
    graph = defs.resolve_asset_graph()
    for view in ANALYSIS_VIEWS:
        node = graph.get(AssetKey(view.name))
        assert node.parent_keys == {AssetKey("user_logins")}
        assert (node.group_name, node.kinds) == ("analysis", {"postgres", "view"})
        assert node.owners == ["team:data-platform"]
        columns = node.metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == list(view.columns)
        assert [key.name for key in node.check_keys] == [CHECK]


def test_batches_do_not_pay_for_the_analysis() -> None:
    job = build_definitions({}).resolve_job_def("ingest_logins")
    selected = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
    assert not selected & VIEWS


@PARTITIONED_ONLY
def test_a_nightly_run_makes_the_partitions_that_are_due(pipeline: Pipeline) -> None:
    [(due,)] = pipeline.database.query(
        "SELECT max(inhrelid::regclass::text) FROM pg_inherits"
        " WHERE inhparent = 'user_logins'::regclass"
        " AND inhrelid::regclass::text < 'login_ingest.user_logins_a'"
    )
    with psycopg.connect(pipeline.database.url) as connection:
        connection.execute(f"DROP TABLE {due}".encode())
    assert pipeline.run(job="create_partitions").success
    assert pipeline.database.query("SELECT to_regclass(%s) IS NOT NULL", due) == [(True,)]


def test_where_the_table_is_not_partitioned_the_nightly_run_has_nothing_to_do(
    pipeline: Pipeline,
) -> None:
    assert pipeline.run(job="create_partitions").success
    partitioned = "SELECT partrelid::regclass::text FROM pg_partitioned_table"
    assert pipeline.database.query(partitioned) == [("login_ingest.ledger",)]
