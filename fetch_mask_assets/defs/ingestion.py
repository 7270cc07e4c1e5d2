"""The chain, its checks and its job: what a run needs, and so what `fetch-mask ingest` imports."""

from collections.abc import Mapping

from dagster import Definitions, EnvVar, ResourceDefinition, in_process_executor

from fetch_mask_assets import settings
from fetch_mask_assets.defs.assets import (
    login_queue_messages,
    masked_logins,
    raw_login_batch,
    user_logins,
    with_freshness,
)
from fetch_mask_assets.defs.checks import CHAIN_CHECKS
from fetch_mask_assets.defs.io_manager import BATCH_MEMORY, batch_memory
from fetch_mask_assets.defs.jobs import ingest_logins
from fetch_mask_assets.defs.resources import (
    LoginDatabaseResource,
    LoginQueueResource,
    MaskingKeysResource,
    WarningLimitsResource,
)
from fetch_mask_assets.pipeline.queue.poison import MIN_SUSPECT_RECEIVES
from fetch_mask_assets.settings import QueueTuning, Tuning, WarningLimits, numbers_of

CHAIN_ASSETS = (raw_login_batch, masked_logins, user_logins)


def ingestion_definitions(
    environ: Mapping[str, str],
    tuning: Tuning,
    login_queue: LoginQueueResource | ResourceDefinition,
) -> Definitions:
    """The definitions of the chain for an environment, its numbers and a queue."""
    return Definitions(
        assets=[login_queue_messages, *with_freshness(CHAIN_ASSETS, tuning.freshness_seconds)],
        asset_checks=CHAIN_CHECKS,
        jobs=[ingest_logins],
        executor=in_process_executor,
        resources={
            "login_queue": login_queue,
            "login_database": LoginDatabaseResource(url=EnvVar(settings.DATABASE_URL)),
            "masking_keys": MaskingKeysResource(
                location=EnvVar(settings.KEYSETS), kms_key=settings.kms_key(environ) or ""
            ),
            "warning_limits": WarningLimitsResource(**numbers_of(tuning, WarningLimits)),
            BATCH_MEMORY: batch_memory,
        },
    )


def login_queue_resource(
    tuning: Tuning, dry_run_from_receive: int = MIN_SUSPECT_RECEIVES, *, is_moved: bool = False
) -> LoginQueueResource:
    """The login queue of the environment, by its numbers."""
    return LoginQueueResource(
        url=EnvVar(settings.QUEUE_URL),
        dry_run_from_receive=dry_run_from_receive,
        is_moved=is_moved,
        **numbers_of(tuning, QueueTuning),
    )
