"""The pipeline on a page. Values that differ between deployments come from the environment."""

import os
from collections.abc import Mapping

from dagster import AssetCheckKey, Definitions

from fetch_mask_assets.defs.checks import CHAIN_CHECKS, every_token_is_well_formed
from fetch_mask_assets.defs.ingestion import (
    CHAIN_ASSETS,
    ingestion_definitions,
    login_queue_resource,
)
from fetch_mask_assets.defs.jobs import prune_runs
from fetch_mask_assets.defs.operations.alerts import alert_destinations, alert_sensor
from fetch_mask_assets.defs.operations.analysis import (
    analyse_logins,
    analysis_assets,
    analysis_schedule,
    analyst_database,
)
from fetch_mask_assets.defs.operations.remask import (
    recovery_database,
    remask_logins,
    remasked_logins,
)
from fetch_mask_assets.defs.operations.report import REPORT_MEANINGS, report_definitions
from fetch_mask_assets.defs.operations.upkeep import (
    check_tokens,
    create_partitions,
    expire_quarantine,
    ledger_schedule,
    partition_schedule,
    prune_ledger,
    retention_schedule,
    tokens_schedule,
)
from fetch_mask_assets.defs.sensor import prune_schedule, queue_depth_sensor
from fetch_mask_assets.settings import Tuning


def build_definitions(environ: Mapping[str, str]) -> Definitions:
    """The definitions for an environment; required settings are read when a run starts.

    Raises:
        SettingError: a number in the environment is malformed or out of its bounds.
    """
    tuning = Tuning.from_environment(environ)
    return Definitions.merge(
        ingestion_definitions(environ, tuning, login_queue_resource(tuning)),
        _operations(environ, tuning),
        report_definitions(environ, tuning, check_meanings()),
    )


def _operations(environ: Mapping[str, str], tuning: Tuning) -> Definitions:
    return Definitions(
        assets=[remasked_logins, *analysis_assets],
        asset_checks=[every_token_is_well_formed],
        jobs=[
            prune_runs,
            remask_logins,
            expire_quarantine,
            analyse_logins,
            create_partitions,
            prune_ledger,
            check_tokens,
        ],
        sensors=[
            queue_depth_sensor(tuning),
            alert_sensor(check_meanings() | REPORT_MEANINGS, tuning.freshness_seconds),
        ],
        schedules=[
            prune_schedule(tuning.run_retention_days),
            retention_schedule(tuning.quarantine_retention_days),
            analysis_schedule,
            partition_schedule,
            ledger_schedule(tuning.ledger_days),
            tokens_schedule,
        ],
        resources={
            "recovery_database": recovery_database(environ),
            "analyst_database": analyst_database(environ),
            "alert_destinations": alert_destinations(environ),
        },
    )


def check_meanings() -> dict[AssetCheckKey, str]:
    """The meaning of each check of the pipeline, and the remedy if it fails."""
    return {
        spec.key: spec.description or ""
        for each in (
            *CHAIN_ASSETS,
            remasked_logins,
            *analysis_assets,
            *CHAIN_CHECKS,
            every_token_is_well_formed,
        )
        for spec in each.check_specs
    }


defs = build_definitions(os.environ)
