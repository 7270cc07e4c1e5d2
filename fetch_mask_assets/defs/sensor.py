"""What starts runs by itself: the sensor on queue depth, the schedule that prunes."""

import time

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
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
from fetch_mask_assets.defs.local_runs import QUEUE_TAG, fail_dead_runs
from fetch_mask_assets.defs.resources import (
    LoginDatabaseResource,
    LoginQueueResource,
    MaskingKeysResource,
)
from fetch_mask_assets.pipeline.queue.backlog import RunsSoFar, runs_to_request
from fetch_mask_assets.pipeline.warehouse.readiness import findings

# Dagster's name for runs that a person starts by selecting assets.
AD_HOC = "__ASSET_JOB"
BECAUSE_TAG = "fetch_mask/because"
"""Why the sensor asked for a run; the page of the run shows it."""

_ACTIVE = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def queue_depth_sensor(max_runs: int, fresh_seconds: int) -> SensorDefinition:
    """The sensor that asks for as many runs as the backlog needs, up to a cap.

    Where nothing waits, it asks for a run before the table would count as stale.

    It keeps no cursor and uses no run key: each tick counts anew what waits and what runs.
    """

    @sensor(
        name="login_queue_depth",
        job=ingest_logins,
        minimum_interval_seconds=15,
        default_status=DefaultSensorStatus.RUNNING,
        description="Starts runs when messages wait on the login queue, while the database and"
        " the keys are ready.",
    )
    def login_queue_depth(
        context: SensorEvaluationContext,
        login_queue: LoginQueueResource,
        login_database: LoginDatabaseResource,
        masking_keys: MaskingKeysResource,
    ) -> SensorResult | SkipReason:
        depth = login_queue.queue.depth()
        unwell = [
            finding.description
            for finding in findings(
                login_database.database, masking_keys.keysets, commits=depth.waiting > 0
            )
            if not finding.ok
        ]
        if unwell:
            return SkipReason(f"Not ready, so no run was asked for: {' '.join(unwell)}")
        fail_dead_runs(context.instance)
        request = runs_to_request(
            depth,
            batch_messages=login_queue.batch_messages,
            runs=_runs_so_far(
                context.instance, login_queue.batch_seconds + login_queue.visibility_seconds
            ),
            max_runs=max_runs,
            look_after_seconds=fresh_seconds / 2,
        )
        if not request.runs:
            return SkipReason(request.because)
        context.log.info(request.because)
        because = {BECAUSE_TAG: request.because}
        return SensorResult(run_requests=[RunRequest(tags=because) for _ in range(request.runs)])

    return login_queue_depth


def prune_schedule(keep_days: int) -> ScheduleDefinition:
    """The schedule that clears away old runs, each night."""
    return ScheduleDefinition(
        name="prune_runs_nightly",
        job=prune_runs,
        cron_schedule="17 3 * * *",
        run_config={"ops": {"delete_old_runs": {"config": {"keep_days": keep_days}}}},
        default_status=DefaultScheduleStatus.RUNNING,
        description=f"Deletes finished runs older than {keep_days} days.",
    )


def _runs_so_far(instance: DagsterInstance, longest_seconds: int) -> RunsSoFar:
    records = [
        record
        for name in (INGEST_LOGINS, AD_HOC)
        for record in instance.get_run_records(RunsFilter(job_name=name, statuses=_ACTIVE))
    ]
    now = time.time()
    active = sum(
        not _has_lost_its_batch(record, now - longest_seconds)
        for record in records
        if _drains_logins(record)
    )
    last = instance.get_run_records(RunsFilter(job_name=INGEST_LOGINS), limit=1)
    return RunsSoFar(active, now - last[0].create_timestamp.timestamp() if last else None)


def _drains_logins(record: RunRecord) -> bool:
    # The command that drains the dead-letter queue takes nothing from the login queue.
    return QUEUE_TAG not in record.dagster_run.tags


def _has_lost_its_batch(record: RunRecord, oldest: float) -> bool:
    # What a run holds for longer than the visibility is back on the queue: it hangs, or was killed.
    return record.start_time is not None and record.start_time < oldest
