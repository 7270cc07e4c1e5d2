"""The definitions: what they hold, and that they load anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetCheckKey, AssetKey, Definitions
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from dagster_shared.yaml_utils import load_yaml_from_path

import fetch_mask_assets
from fetch_mask_assets.definitions import build_definitions, defs
from fetch_mask_assets.errors import SettingError
from fetch_mask_assets.settings import ALERT_COMMAND, ALERT_WEBHOOK

CHECKOUT = Path(fetch_mask_assets.__file__).parents[1]
CANARY = "canary-4711"

PARENTS = {
    "login_queue": set(),
    "raw_login_batch": {"login_queue"},
    "masked_logins": {"raw_login_batch"},
    "user_logins": {"raw_login_batch", "masked_logins"},
    "remasked_logins": {"user_logins"},
    "repeated_ips": {"user_logins"},
    "repeated_devices": {"user_logins"},
    "users_sharing_devices": {"user_logins"},
    "readable_logins": {"user_logins"},
    "privacy_report": {"user_logins"},
}
UPKEEP = {"remasked_logins", "privacy_report"}
KINDS = {
    "login_queue": {"aws", "sqs"},
    "raw_login_batch": {"aws", "polars"},
    "masked_logins": {"polars"},
    "user_logins": {"postgres", "table"},
    "remasked_logins": {"postgres"},
    "privacy_report": {"html", "json"},
}
BLOCKING = {
    ("masked_logins", "every_message_accounted_for"),
    ("masked_logins", "no_unexpected_column"),
    ("masked_logins", "no_raw_value"),
    ("masked_logins", "tokens_well_formed"),
    ("masked_logins", "one_token_per_value"),
    ("masked_logins", "tokens_can_be_unmasked"),
    ("masked_logins", "tokens_hold_no_digest"),
    ("masked_logins", "sealed_bodies_can_be_opened"),
    ("user_logins", "balance_holds"),
}
NOT_BLOCKING = {
    ("raw_login_batch", "redelivered_messages"),
    ("raw_login_batch", "oldest_message_age"),
    ("masked_logins", "rejected_messages"),
    ("masked_logins", "unparsed_versions"),
    ("user_logins", "masked_columns_are_tokens"),
}
NIGHTLY = {("user_logins", "every_token_is_well_formed")}


def test_the_definitions_load_in_a_fresh_interpreter_without_any_setting(tmp_path: Path) -> None:
    code = (
        "from fetch_mask_assets.definitions import defs;"
        "from dagster import Definitions; Definitions.validate_loadable(defs)"
    )
    done = subprocess.run(  # noqa: S603 (our own program, no shell)
        [sys.executable, "-W", "error", "-c", code],
        env={},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_chain_is_the_one_of_the_design() -> None:
    graph = defs.resolve_asset_graph()
    assert {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    } == PARENTS


def test_each_asset_has_its_group_kinds_owner_and_description() -> None:
    graph = defs.resolve_asset_graph()
    for name, kinds in KINDS.items():
        node = graph.get(AssetKey(name))
        assert node.kinds == kinds
        assert node.group_name == ("upkeep" if name in UPKEEP else "user_logins")
        assert node.owners == ["team:data-platform"]
        assert node.description
    assert not graph.get(AssetKey("login_queue")).is_executable


def test_the_checks_are_the_ones_expected_and_the_right_ones_block() -> None:
    specs = {
        (spec.asset_key.to_user_string(), spec.name): spec
        for checks in defs.asset_checks or ()
        for spec in checks.check_specs
    }
    assert {key for key, spec in specs.items() if spec.blocking} == BLOCKING
    assert {key for key, spec in specs.items() if not spec.blocking} == NOT_BLOCKING | NIGHTLY
    assert all(spec.description for spec in specs.values())


def test_the_job_is_the_whole_chain_with_every_check_in_one_process() -> None:
    job = defs.resolve_job_def("ingest_logins")
    layer = job.asset_layer
    assert {key.to_user_string() for key in layer.selected_asset_keys} == {
        "raw_login_batch",
        "masked_logins",
        "user_logins",
    }
    assert layer.asset_graph.asset_check_keys == {
        AssetCheckKey(AssetKey(asset), check) for asset, check in BLOCKING | NOT_BLOCKING
    }
    assert job.executor_def.name == "in_process"


def test_a_run_that_hangs_is_ended() -> None:
    assert defs.resolve_job_def("ingest_logins").tags["dagster/max_runtime"] == "1800"


def test_jobs_sensors_and_schedules_are_there_and_on() -> None:
    repository = defs.get_repository_def()
    jobs = {
        "ingest_logins",
        "prune_runs",
        "remask_logins",
        "expire_quarantine",
        "analyse_logins",
        "create_partitions",
        "prune_ledger",
        "check_tokens",
    }
    assert jobs <= set(repository.job_names)
    assert {each.name: each.default_status.value for each in repository.sensor_defs} == {
        "login_queue_depth": "RUNNING",
        "alerts": "RUNNING",
    }
    assert {each.name: each.default_status.value for each in repository.schedule_defs} == {
        "prune_runs_nightly": "RUNNING",
        "expire_quarantine_nightly": "RUNNING",
        "analyse_logins_nightly": "RUNNING",
        "create_partitions_nightly": "RUNNING",
        "prune_ledger_nightly": "RUNNING",
        "check_tokens_nightly": "RUNNING",
        "privacy_report_nightly": "STOPPED",
    }


def test_the_table_has_a_freshness_policy_of_the_settings_length() -> None:
    graph = build_definitions({"LOGIN_FRESHNESS_SECONDS": "600"}).resolve_asset_graph()
    policy = graph.get(AssetKey("user_logins")).freshness_policy
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    assert policy.fail_window.to_timedelta().total_seconds() == 600
    assert graph.get(AssetKey("masked_logins")).freshness_policy is None


def test_frames_that_pass_between_assets_are_written_nowhere() -> None:
    for name in ("raw_login_batch", "masked_logins"):
        assets = defs.resolve_assets_def(name)
        assert assets.get_io_manager_key_for_asset_key(AssetKey(name)) == "batch_memory"


def test_no_resource_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    names = ("LOGIN_DATABASE_URL", "LOGIN_QUEUE_URL", "AWS_SECRET_ACCESS_KEY")
    alerts = dict.fromkeys((ALERT_WEBHOOK, ALERT_COMMAND), f"https://host/{CANARY}")
    for name in names:
        monkeypatch.setenv(name, f"postgresql://user:{CANARY}@host/name")
    for name, value in alerts.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASKING_KEYSETS", "keysets")
    definitions = build_definitions(alerts)
    resources = definitions.resources or {}
    assert CANARY not in repr(resources)
    shown = ("login_queue", "login_database", "masking_keys", "warning_limits")
    for name in (*shown, "alert_destinations"):
        with resources[name].process_config_and_initialize_cm() as resolved:
            assert CANARY not in f"{resolved!r} {resolved} {resources[name]}"


def test_numbers_of_the_environment_reach_the_resources() -> None:
    definitions = build_definitions({"LOGIN_BATCH_MESSAGES": "77", "LOGIN_RUN_RETENTION_DAYS": "3"})
    resources = definitions.resources or {}
    assert resources["login_queue"].tuning.batch_messages == 77
    schedule = definitions.resolve_schedule_def("prune_runs_nightly")
    assert "older than 3 days" in (schedule.description or "")


def test_a_number_out_of_its_bounds_does_not_load() -> None:
    with pytest.raises(SettingError, match="LOGIN_RECEIVERS"):
        build_definitions({"LOGIN_RECEIVERS": "0"})


def test_definitions_of_other_numbers_load() -> None:
    Definitions.validate_loadable(build_definitions({"LOGIN_MAX_RUNS": "9"}))


def test_the_settings_of_dagster_hold_no_secret() -> None:
    path = Path(fetch_mask_assets.__file__).parent / "local_stack" / "dagster.yaml"
    settings: Any = load_yaml_from_path(str(path))
    assert settings["storage"]["custom"]["config"] == {
        "postgres_url": {"env": "DAGSTER_POSTGRES_URL"}
    }
    assert settings["telemetry"] == {"enabled": False}
    assert settings["run_monitoring"]["enabled"]


def test_the_workspace_finds_the_package_from_a_bare_checkout() -> None:
    workspace: Any = load_yaml_from_path(str(CHECKOUT / "workspace.yaml"))
    [location] = workspace["load_from"]
    assert location["python_module"] == {
        "module_name": "fetch_mask_assets.definitions",
        "working_directory": ".",
    }
