"""The pipeline on a page. Values that differ between deployments come from the environment."""

import os
from collections.abc import Mapping

from dagster import AssetCheckKey, Definitions, EnvVar, in_process_executor

from fetch_mask_assets import settings
from fetch_mask_assets.defs.assets import (
    login_queue_messages,
    masked_logins,
    raw_login_batch,
    user_logins,
    with_freshness,
)
from fetch_mask_assets.defs.checks import (
    every_token_is_well_formed,
    masked_thresholds,
    masking_rules,
    raw_thresholds,
    table_rules,
)
from fetch_mask_assets.defs.io_manager import BATCH_MEMORY, batch_memory
from fetch_mask_assets.defs.jobs import ingest_logins, prune_runs
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
from fetch_mask_assets.defs.resources import (
    LoginDatabaseResource,
    LoginQueueResource,
    MaskingKeysResource,
    WarningLimitsResource,
)
from fetch_mask_assets.defs.sensor import prune_schedule, queue_depth_sensor
from fetch_mask_assets.pipeline.queue.poison import MIN_SUSPECT_RECEIVES
from fetch_mask_assets.settings import QueueTuning, Tuning, WarningLimits, numbers_of

_ASSETS = [raw_login_batch, masked_logins, user_logins, remasked_logins, *analysis_assets]
_CHECKS = [
    raw_thresholds,
    masking_rules,
    masked_thresholds,
    table_rules,
    every_token_is_well_formed,
]


def build_definitions(environ: Mapping[str, str], queue_url: str | None = None) -> Definitions:
    """The definitions for an environment; required settings are read when a run starts.

    Args:
        environ: the environment.
        queue_url: another queue than the environment's to receive login events from.

    Raises:
        SettingError: a number in the environment is malformed or out of its bounds.
    """
    tuning = Tuning.from_environment(environ)
    return Definitions.merge(
        _pipeline(environ, queue_url, tuning),
        report_definitions(environ, tuning, check_meanings()),
    )


def _pipeline(environ: Mapping[str, str], queue_url: str | None, tuning: Tuning) -> Definitions:
    return Definitions(
        assets=[login_queue_messages, *with_freshness(_ASSETS, tuning.freshness_seconds)],
        asset_checks=_CHECKS,
        jobs=[
            ingest_logins,
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
        executor=in_process_executor,
        resources={
            "login_queue": _login_queue(tuning, queue_url),
            "login_database": LoginDatabaseResource(url=EnvVar(settings.DATABASE_URL)),
            "recovery_database": recovery_database(environ),
            "analyst_database": analyst_database(environ),
            "masking_keys": MaskingKeysResource(
                location=EnvVar(settings.KEYSETS), kms_key=settings.kms_key(environ) or ""
            ),
            "warning_limits": WarningLimitsResource(**numbers_of(tuning, WarningLimits)),
            "alert_destinations": alert_destinations(environ),
            BATCH_MEMORY: batch_memory,
        },
    )


def check_meanings() -> dict[AssetCheckKey, str]:
    """The meaning of each check of the pipeline, and the remedy if it fails."""
    return {
        spec.key: spec.description or ""
        for each in (*_ASSETS, *_CHECKS)
        for spec in each.check_specs
    }


def _login_queue(tuning: Tuning, other: str | None) -> LoginQueueResource:
    return LoginQueueResource(
        url=other or EnvVar(settings.QUEUE_URL),
        # A message on another queue has failed before.
        dry_run_from_receive=1 if other else MIN_SUSPECT_RECEIVES,
        is_moved=bool(other) and str(other).endswith(".fifo"),
        **numbers_of(tuning, QueueTuning),
    )


defs = build_definitions(os.environ)
