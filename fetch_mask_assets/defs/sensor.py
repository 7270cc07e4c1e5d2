"""The sensor on queue depth, and the schedule that deletes old runs."""

import time

from dagster import (
    DagsterInstance,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    RunRecord,
    RunRequest,
    RunsFilter,
    ScheduleDefinition,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from fetch_mask_assets.defs.jobs import INGEST_LOGINS, ingest_logins, prune_runs
from fetch_mask_assets.defs.local_runs import QUEUE_TAG, UNFINISHED_STATUSES, fail_orphaned_runs
from fetch_mask_assets.defs.resources import (
    LoginDatabaseResource,
    LoginQueueResource,
    MaskingKeysResource,
)
from fetch_mask_assets.pipeline.queue.backlog import RunsSoFar, runs_to_request
from fetch_mask_assets.pipeline.warehouse.readiness import findings
from fetch_mask_assets.settings import Tuning

# Dagster's job name for runs that are started by selecting assets.
AD_HOC = "__ASSET_JOB"
REASON_TAG = "fetch_mask/reason"
"""Why the sensor requested the run; the page of the run shows it."""


def queue_depth_sensor(tuning: Tuning) -> SensorDefinition:
    """The sensor that requests as many runs as the backlog needs, up to a cap.

    It has no cursor and no run key: each tick counts the waiting messages and active runs anew.
    """

    @sensor(
        name="login_queue_depth",
        job=ingest_logins,
        minimum_interval_seconds=15,
        default_status=DefaultSensorStatus.RUNNING,
        description="Requests runs when messages wait on the login queue, while the database and"
        " the keys are ready. On an empty queue it requests a run before user_logins is stale.",
    )
    def login_queue_depth(
        context: SensorEvaluationContext,
        login_queue: LoginQueueResource,
        login_database: LoginDatabaseResource,
        masking_keys: MaskingKeysResource,
    ) -> SensorResult | SkipReason:
        depth = login_queue.queue.depth()
        not_ready = [
            finding.description
            for finding in findings(
                login_database.database, masking_keys.keysets, commits=depth.waiting > 0
            )
            if not finding.ok
        ]
        if not_ready:
            return SkipReason(f"Not ready, so no run was requested: {' '.join(not_ready)}")
        fail_orphaned_runs(context.instance)
        max_seconds = tuning.batch_seconds + tuning.visibility_seconds
        needed = runs_to_request(depth, _runs_so_far(context.instance, max_seconds), tuning)
        if not needed.runs:
            return SkipReason(needed.reason)
        context.log.info(needed.reason)
        tags = {REASON_TAG: needed.reason}
        return SensorResult(run_requests=[RunRequest(tags=tags) for _ in range(needed.runs)])

    return login_queue_depth


def prune_schedule(keep_days: int) -> ScheduleDefinition:
    """The schedule that deletes old runs each night."""
    return ScheduleDefinition(
        name="prune_runs_nightly",
        job=prune_runs,
        cron_schedule="17 3 * * *",
        run_config={"ops": {"delete_old_runs": {"config": {"keep_days": keep_days}}}},
        default_status=DefaultScheduleStatus.RUNNING,
        description=f"Deletes finished runs older than {keep_days} days.",
    )


def _runs_so_far(instance: DagsterInstance, max_seconds: int) -> RunsSoFar:
    records = [
        record
        for name in (INGEST_LOGINS, AD_HOC)
        for record in instance.get_run_records(
            RunsFilter(job_name=name, statuses=UNFINISHED_STATUSES)
        )
    ]
    now = time.time()
    active = sum(
        not _has_lost_its_batch(record, now - max_seconds)
        for record in records
        if _drains_logins(record)
    )
    last = instance.get_run_records(RunsFilter(job_name=INGEST_LOGINS), limit=1)
    return RunsSoFar(active, now - last[0].create_timestamp.timestamp() if last else None)


def _drains_logins(record: RunRecord) -> bool:
    # A drain of the dead-letter queue receives nothing from the login queue.
    return QUEUE_TAG not in record.dagster_run.tags


def _has_lost_its_batch(record: RunRecord, oldest: float) -> bool:
    # After the visibility timeout its messages are back on the queue: it hangs, or was killed.
    return record.start_time is not None and record.start_time < oldest
