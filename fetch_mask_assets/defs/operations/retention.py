"""What deletes quarantined messages that are older than they may be."""

from dagster import (
    Config,
    DefaultScheduleStatus,
    OpExecutionContext,
    ScheduleDefinition,
    in_process_executor,
    job,
    op,
)
from pydantic import Field

from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import LoginDatabaseResource
from fetch_mask_assets.operations.quarantine.postgres import Quarantine

EXPIRE_QUARANTINE = "expire_quarantine"


class ExpireConfig(Config):
    """What to keep."""

    keep_days: int = Field(description="Days for which a quarantined message is kept.", ge=1)


@op(description="Deletes quarantined messages that are older than the setting, on the record.")
def delete_old_quarantined(
    context: OpExecutionContext, config: ExpireConfig, recovery_database: LoginDatabaseResource
) -> None:
    """The database counts and records each transaction; a run that is killed left nothing half."""
    with redact_errors("deleting old quarantined messages"):
        gone = sum(Quarantine(recovery_database.database.url).expire(config.keep_days))
    context.log.info("deleted %d quarantined messages older than %d days", gone, config.keep_days)


@job(
    name=EXPIRE_QUARANTINE,
    executor_def=in_process_executor,
    description="Deletes quarantined messages that are older than they may be.",
)
def expire_quarantine() -> None:
    """Deletes old quarantined messages."""
    delete_old_quarantined()


def retention_schedule(keep_days: int) -> ScheduleDefinition:
    """The schedule that deletes old quarantined messages, each night."""
    return ScheduleDefinition(
        name="expire_quarantine_nightly",
        job=expire_quarantine,
        cron_schedule="47 3 * * *",
        run_config={"ops": {"delete_old_quarantined": {"config": {"keep_days": keep_days}}}},
        default_status=DefaultScheduleStatus.RUNNING,
        description=f"Deletes quarantined messages older than {keep_days} days.",
    )
