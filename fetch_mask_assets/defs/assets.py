"""The chain: login queue -> raw batch -> masked logins -> user_logins."""

import time
from collections.abc import Collection
from datetime import UTC, datetime

import polars as pl
from dagster import (
    AssetExecutionContext,
    AssetIn,
    AssetKey,
    AssetSpec,
    DagsterEventType,
    DagsterLogManager,
    MaterializeResult,
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
from fetch_mask_assets.errors import PoisonError, RulesBrokenError
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.pipeline.batch.balance import Balance
from fetch_mask_assets.pipeline.batch.frames import mask_batch, newest_handles
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch
from fetch_mask_assets.pipeline.batch.masking_rules import (
    broken_rules,
    quarantine_violations,
)
from fetch_mask_assets.pipeline.queue.dry_run import DRY_RUN_SECONDS, DryRunError, dry_run_messages
from fetch_mask_assets.pipeline.queue.poison import is_code_fault, suspects, without
from fetch_mask_assets.pipeline.queue.sqs import LoginQueue
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready, require_writable

# Soon, so that it comes to the dead-letter queue before its batches do.
_LEFT_SECONDS = 5

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
    metadata=table_metadata.QUEUE_DEFINITION,
)


@asset(
    key=RAW_LOGIN_BATCH,
    deps=[LOGIN_QUEUE],
    description="One batch of messages, received from the queue and held in memory until they are"
    " committed. Nothing is received while the database or the keys are not ready, and what a"
    " failed run has received goes back to the queue. What was received before is masked in a"
    " process of its own first; a message that kills it is left on the queue.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"aws", "polars"},
    io_manager_key=BATCH_MEMORY,
    metadata=table_metadata.RAW_DEFINITION,
)
def raw_login_batch(
    context: AssetExecutionContext,
    login_queue: LoginQueueResource,
    login_database: LoginDatabaseResource,
    masking_keys: MaskingKeysResource,
) -> MaterializeResult[pl.DataFrame]:
    """Receives a batch, once everything that it needs further on is ready."""
    _require_whole_chain(context)
    with redact_errors("receiving"):
        require_ready(login_database.database, masking_keys.keyring)
        require_writable(login_database.database, masking_keys.keyring)
        drained = login_queue.queue.receive(login_queue.limits)
        raw = _without_poison(context.log, login_queue, drained.raw)
        metadata = table_metadata.receive_metadata(drained, raw, datetime.now(UTC))
    return MaterializeResult(value=raw, metadata=metadata)


@asset(
    key=MASKED_LOGINS,
    ins={"raw": AssetIn(RAW_LOGIN_BATCH)},
    description="The same messages, line by line: each a login whose IP and device id are tokens,"
    " or a reason for rejection with the sealed body. In memory only.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"polars"},
    io_manager_key=BATCH_MEMORY,
    metadata=table_metadata.MASKED_DEFINITION,
)
def masked_logins(
    raw: pl.DataFrame, masking_keys: MaskingKeysResource
) -> MaterializeResult[pl.DataFrame]:
    """Decodes, validates and masks each message; a few lines that break a rule are set aside."""
    started = time.perf_counter()
    with redact_errors("masking"):
        masked = mask_batch(raw, masking_keys.keyring)
        masked = quarantine_violations(masking_keys.batch(raw, masked))
        seconds = time.perf_counter() - started
        metadata = table_metadata.masking_metadata(masked, masking_keys.keyring, seconds)
    return MaterializeResult(value=masked, metadata=metadata)


@asset(
    key=USER_LOGINS,
    ins={"raw": AssetIn(RAW_LOGIN_BATCH), "masked": AssetIn(MASKED_LOGINS)},
    description="The table that analysts query. A batch is one transaction: ledger, rows,"
    " quarantine, batch record. After the commit, and only then, its messages are deleted from"
    " the queue. Each SQS message id loads once, however often it is delivered.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "table"},
    metadata=table_metadata.TABLE_DEFINITION,
)
def user_logins(  # noqa: PLR0913, PLR0917 (Dagster passes inputs and resources one by one)
    context: AssetExecutionContext,
    raw: pl.DataFrame,
    masked: pl.DataFrame,
    login_queue: LoginQueueResource,
    login_database: LoginDatabaseResource,
    masking_keys: MaskingKeysResource,
) -> MaterializeResult[None]:
    """Commits the batch, then deletes its messages."""
    batch = masking_keys.batch(raw, masked)
    started = time.perf_counter()
    with redact_errors("committing"):
        _refuse_broken(batch)
        balance = _commit(login_database, context.run.run_id, batch)
    committed = time.perf_counter()
    with redact_errors("deleting from the queue"):
        deleted = login_queue.queue.delete(newest_handles(raw))
        stages = _stages_before(context) | {
            "commit_seconds": committed - started,
            "delete_seconds": time.perf_counter() - committed,
        }
        metadata = table_metadata.commit_metadata(balance, deleted, stages)
        metadata |= table_metadata.arrival_metadata(raw, masked, datetime.now(UTC))
    return MaterializeResult(metadata=metadata)


def _stages_before(context: AssetExecutionContext) -> dict[str, float]:
    entries = context.instance.all_logs(
        context.run.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
    )
    return table_metadata.stage_seconds(
        entry.asset_materialization for entry in entries if entry.asset_materialization
    )


def _without_poison(
    log: DagsterLogManager, login_queue: LoginQueueResource, raw: pl.DataFrame
) -> pl.DataFrame:
    """The batch without what kills the process that masks it; that is left on the queue."""
    queue, lines = login_queue.queue, suspects(raw, login_queue.dry_run_from_receive)
    if not lines:
        return raw
    hidden_for = login_queue.visibility_seconds + DRY_RUN_SECONDS
    try:
        verdict = dry_run_messages(raw, lines, on_death=lambda: queue.extend_visibility(hidden_for))
    except DryRunError as error:
        # Late, so that what keeps the process from starting has time to pass.
        log.warning("%s %d messages are left on the queue untried.", error, len(lines))
        return _left_on(queue, raw, lines, login_queue.visibility_seconds)
    if is_code_fault(len(lines), len(verdict.left)):
        raise PoisonError(len(lines))
    if verdict.left:
        log.warning(
            "%d messages are left on the queue: %d kill the process that masks them, %d could not"
            " be tried in time. docs/dead-letters.md says what becomes of them.",
            len(verdict.left),
            len(verdict.poison),
            len(verdict.untried),
        )
    return _left_on(queue, raw, verdict.left, _LEFT_SECONDS)


def _left_on(
    queue: LoginQueue, raw: pl.DataFrame, lines: Collection[int], seconds: int
) -> pl.DataFrame:
    """The batch without some messages, which go back to the queue and show after a while."""
    rest = without(raw, lines)
    queue.release_messages(set(raw["message_id"]) - set(rest["message_id"]), seconds)
    return rest


def _require_whole_chain(context: AssetExecutionContext) -> None:
    selected = context.job_def.asset_layer.selected_asset_keys
    if not set(CHAIN) <= selected:
        raise PartialSelectionError


def _refuse_broken(batch: MaskedBatch) -> None:
    # A run that was started without its checks must not write what they would have stopped.
    broken = broken_rules(batch)
    if broken:
        counts = ", ".join(f"{name} ({count})" for name, count in broken.items())
        raise RulesBrokenError(
            f"the masked batch breaks the masking rules {counts}: nothing was written, and the"
            " messages go back to the queue."
        )


def _commit(database: LoginDatabaseResource, run_id: str, batch: MaskedBatch) -> Balance:
    if batch.masked.is_empty():
        return Balance()
    bodies = batch.raw.select("message_id", "body")

    def seal(message_id: str) -> bytes:
        body = bodies.filter(pl.col("message_id") == message_id)["body"][0]
        return batch.keyring.sealer.seal(body, message_id)

    links = batch_links(batch.masked, batch.keyring)
    return database.database.commit_batch(BatchToCommit(run_id, batch.masked, seal, links))
