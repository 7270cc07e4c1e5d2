"""The nightly upkeep of tables: new monthly partitions, and the retention of the quarantine."""

from dagster import (
    Backoff,
    Config,
    DefaultScheduleStatus,
    OpExecutionContext,
    RetryPolicy,
    ScheduleDefinition,
    in_process_executor,
    job,
    op,
)
from pydantic import Field

from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import LoginDatabaseResource
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets.postgres import migrate

CREATE_PARTITIONS = "create_partitions"
EXPIRE_QUARANTINE = "expire_quarantine"


class ExpireConfig(Config):
    """The retention of the quarantine."""

    keep_days: int = Field(description="Days for which a quarantined message is kept.", ge=1)


# A long read blocks it until it gives up. Partitions exist three months ahead, so any later night
# is early enough.
@op(
    description="Creates the monthly partitions of user_logins that are due.",
    retry_policy=RetryPolicy(max_retries=3, delay=30, backoff=Backoff.EXPONENTIAL),
)
def create_due_partitions(
    context: OpExecutionContext, login_database: LoginDatabaseResource
) -> None:
    """Create the partitions that are due; none if the table is not partitioned."""
    with redact_errors("creating partitions"):
        created = migrate.create_partitions(login_database.url)
    if created is None:
        context.log.info("user_logins is not partitioned by month: no partition is needed")
    else:
        context.log.info("created %d partitions", created)


@job(
    name=CREATE_PARTITIONS,
    executor_def=in_process_executor,
    description="Creates the monthly partitions of user_logins, up to three months ahead.",
)
def create_partitions() -> None:
    """Create the partitions that are due."""
    create_due_partitions()


partition_schedule = ScheduleDefinition(
    name="create_partitions_nightly",
    job=create_partitions,
    cron_schedule="37 2 * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Creates the monthly partitions of user_logins that are due.",
)


@op(description="Deletes quarantined messages older than the retention, with a row in the audit.")
def delete_expired_messages(
    context: OpExecutionContext, config: ExpireConfig, recovery_database: LoginDatabaseResource
) -> None:
    """Delete expired messages; each transaction is complete and audited if the run is killed."""
    with redact_errors("deleting expired quarantined messages"):
        deleted = sum(Quarantine(recovery_database.database.url).expire(config.keep_days))
    context.log.info(
        "deleted %d quarantined messages older than %d days", deleted, config.keep_days
    )


@job(
    name=EXPIRE_QUARANTINE,
    executor_def=in_process_executor,
    description="Deletes quarantined messages older than the retention.",
)
def expire_quarantine() -> None:
    """Delete expired messages."""
    delete_expired_messages()


def retention_schedule(keep_days: int) -> ScheduleDefinition:
    """Return the schedule that deletes expired quarantined messages each night."""
    return ScheduleDefinition(
        name="expire_quarantine_nightly",
        job=expire_quarantine,
        cron_schedule="47 3 * * *",
        run_config={"ops": {"delete_expired_messages": {"config": {"keep_days": keep_days}}}},
        default_status=DefaultScheduleStatus.RUNNING,
        description=f"Deletes quarantined messages older than {keep_days} days.",
    )
