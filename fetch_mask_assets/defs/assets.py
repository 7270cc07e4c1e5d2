"""The chain: login queue -> raw batch -> masked logins -> user_logins."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
from dagster import (
    AssetExecutionContext,
    AssetIn,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    DagsterEventType,
    FreshnessPolicy,
    MaterializeResult,
    apply_freshness_policy,
    asset,
)

from fetch_mask_assets.defs import metadata as table_metadata
from fetch_mask_assets.defs.io_manager import BATCH_MEMORY, PartialSelectionError
from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import (
    LoginDatabaseResource,
    LoginQueueResource,
    MaskingKeysResource,
)
from fetch_mask_assets.pipeline.batch.checked_batch import CheckedBatch, mask_and_check
from fetch_mask_assets.pipeline.queue.isolation import return_poison_messages
from fetch_mask_assets.pipeline.queue.limits import DrainLimits
from fetch_mask_assets.pipeline.warehouse.commit import commit_checked
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready, require_writable

GROUP = "user_logins"
UPKEEP_GROUP = "upkeep"
OWNERS = ["team:data-platform"]

LOGIN_QUEUE = AssetKey("login_queue")
RAW_LOGIN_BATCH = AssetKey("raw_login_batch")
MASKED_LOGINS = AssetKey("masked_logins")
USER_LOGINS = AssetKey("user_logins")
CHAIN = (RAW_LOGIN_BATCH, MASKED_LOGINS, USER_LOGINS)

login_queue_messages = AssetSpec(
    LOGIN_QUEUE,
    description="Login events as the apps send them: JSON with `ip` and `device_id` in the clear."
    " The queue is the only store of what is not committed, so it is also the retry.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"aws", "sqs"},
    metadata=table_metadata.MESSAGES_DEFINITION,
)


@asset(
    key=RAW_LOGIN_BATCH,
    deps=[LOGIN_QUEUE],
    description="One batch of messages, received from the queue and kept in memory until they are"
    " committed. Nothing is received while the database or the keys are not ready, and the messages"
    " of a failed run go back to the queue. Redelivered messages are masked in another process"
    " first; a message that kills it returns to the queue.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"aws", "polars"},
    io_manager_key=BATCH_MEMORY,
    metadata=table_metadata.MESSAGES_DEFINITION,
)
def raw_login_batch(
    context: AssetExecutionContext,
    login_queue: LoginQueueResource,
    login_database: LoginDatabaseResource,
    masking_keys: MaskingKeysResource,
) -> MaterializeResult[pl.DataFrame]:
    """Receives a batch, once the database and the keys are ready."""
    _require_whole_chain(context)
    queue, warn = login_queue.queue, context.log.warning
    with redact_errors("receiving"):
        require_ready(login_database.database, masking_keys.keyring)
        require_writable(login_database.database, masking_keys.keyring)
        received = queue.receive(DrainLimits.of(login_queue.tuning))
        raw = return_poison_messages(queue, received.raw, login_queue.dry_run_policy, warn)
        metadata = table_metadata.receive_metadata(received, raw, datetime.now(UTC))
    return MaterializeResult(value=raw, metadata=metadata)


@asset(
    key=MASKED_LOGINS,
    ins={"raw": AssetIn(RAW_LOGIN_BATCH)},
    description="The same messages, row by row: each a login whose IP and device id are tokens,"
    " or a reason for rejection with the sealed body. In memory only.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"polars"},
    io_manager_key=BATCH_MEMORY,
    metadata=table_metadata.MASKED_DEFINITION,
)
def masked_logins(
    raw: pl.DataFrame, masking_keys: MaskingKeysResource
) -> MaterializeResult[CheckedBatch]:
    """Decodes, validates and masks each message, and applies the masking rules."""
    started = time.perf_counter()
    with redact_errors("masking"):
        batch = mask_and_check(raw, masking_keys.keyring)
        seconds = time.perf_counter() - started
        metadata = table_metadata.masking_metadata(batch.masked, batch.keyring, seconds)
    return MaterializeResult(value=batch, metadata=metadata)


@asset(
    key=USER_LOGINS,
    ins={"raw": AssetIn(RAW_LOGIN_BATCH), "batch": AssetIn(MASKED_LOGINS)},
    description="The table that analysts query. A batch is one transaction: ledger, rows,"
    " quarantine, batch record. After the commit, and only then, its messages are deleted from"
    " the queue. Each SQS message id loads once, however often it is delivered.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "table"},
    metadata=table_metadata.TABLE_DEFINITION,
)
def user_logins(
    context: AssetExecutionContext,
    raw: pl.DataFrame,
    batch: CheckedBatch,
    login_queue: LoginQueueResource,
    login_database: LoginDatabaseResource,
) -> MaterializeResult[None]:
    """Commits the batch, then deletes its messages."""
    started = time.perf_counter()
    with redact_errors("committing"):
        balance = commit_checked(
            login_database.url, context.run.run_id, batch, is_moved=login_queue.is_moved
        )
    committed = time.perf_counter()
    with redact_errors("deleting from the queue"):
        deleted = login_queue.queue.delete(raw["message_id"])
        stages = _earlier_stages(context) | {
            "commit_seconds": committed - started,
            "delete_seconds": time.perf_counter() - committed,
        }
        metadata = table_metadata.commit_metadata(balance, deleted, stages)
        metadata |= table_metadata.arrival_metadata(raw, batch.masked, datetime.now(UTC))
    return MaterializeResult(metadata=metadata)


def with_freshness(assets: Sequence[AssetsDefinition], seconds: int) -> list[AssetsDefinition]:
    """The assets; `user_logins` must be loaded, or the queue found empty, within these seconds.

    The sensor on queue depth requests a run after half of that time, so that an empty queue does
    not make the table stale.
    """
    policy = FreshnessPolicy.time_window(
        fail_window=timedelta(seconds=seconds), warn_window=timedelta(seconds=seconds * 3 // 4)
    )

    def apply(spec: AssetSpec) -> AssetSpec:
        return apply_freshness_policy(spec, policy) if spec.key == USER_LOGINS else spec

    return [each.map_asset_specs(apply) for each in assets]


def _require_whole_chain(context: AssetExecutionContext) -> None:
    selected = context.job_def.asset_layer.selected_asset_keys
    if not set(CHAIN) <= selected:
        raise PartialSelectionError


def _earlier_stages(context: AssetExecutionContext) -> dict[str, float]:
    entries = context.instance.all_logs(
        context.run.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
    )
    return table_metadata.stage_seconds(
        entry.asset_materialization for entry in entries if entry.asset_materialization
    )
