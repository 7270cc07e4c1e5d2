"""What makes the monthly partitions of user_logins ahead of time."""

from dagster import (
    Backoff,
    DefaultScheduleStatus,
    OpExecutionContext,
    RetryPolicy,
    ScheduleDefinition,
    in_process_executor,
    job,
    op,
)

from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import LoginDatabaseResource
from fetch_mask_assets.postgres import migrate

CREATE_PARTITIONS = "create_partitions"


# A reader who takes long makes it give up; three months ahead, any of a hundred nights will do.
@op(
    description="Makes the partitions that are due, where user_logins is partitioned by month.",
    retry_policy=RetryPolicy(max_retries=3, delay=30, backoff=Backoff.EXPONENTIAL),
)
def create_due_partitions(
    context: OpExecutionContext, login_database: LoginDatabaseResource
) -> None:
    """Makes none twice, and none at all where the table is not partitioned."""
    with redact_errors("making partitions"):
        made = migrate.create_partitions(login_database.url)
    if made is None:
        context.log.info("user_logins is not partitioned by month: there is nothing to make")
    else:
        context.log.info("made %d partitions", made)


@job(
    name=CREATE_PARTITIONS,
    executor_def=in_process_executor,
    description="Makes the monthly partitions of user_logins, up to three months ahead.",
)
def create_partitions() -> None:
    """Makes the partitions that are due."""
    create_due_partitions()


partition_schedule = ScheduleDefinition(
    name="make_partitions_nightly",
    job=create_partitions,
    cron_schedule="37 2 * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Makes the monthly partitions of user_logins that are due.",
)
