"""The nightly upkeep: partitions, retention of quarantine and ledger, and a look at every token."""

from dagster import (
    AssetSelection,
    Backoff,
    Config,
    DefaultScheduleStatus,
    OpExecutionContext,
    RetryPolicy,
    ScheduleDefinition,
    define_asset_job,
    in_process_executor,
    job,
    op,
)
from pydantic import Field

from fetch_mask_assets.defs.checks import every_token_is_well_formed
from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import LoginDatabaseResource
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets.pipeline.warehouse import ledger
from fetch_mask_assets.postgres import migrate

CREATE_PARTITIONS = "create_partitions"
EXPIRE_QUARANTINE = "expire_quarantine"
PRUNE_LEDGER = "prune_ledger"
CHECK_TOKENS = "check_tokens"


class ExpireConfig(Config):
    """The retention of the quarantine."""

    keep_days: int = Field(description="Days for which a quarantined message is kept.", ge=1)


class PruneLedgerConfig(Config):
    """The days that the ledger keeps."""

    keep_days: int = Field(description="Days for which a message id is kept.", ge=15)


# A long read blocks it until it gives up. Partitions exist two days ahead, so the next night is
# early enough.
@op(
    description="Creates the partitions of user_logins and of the ledger that are due.",
    retry_policy=RetryPolicy(max_retries=3, delay=30, backoff=Backoff.EXPONENTIAL),
)
def create_due_partitions(
    context: OpExecutionContext, login_database: LoginDatabaseResource
) -> None:
    """Create the partitions that are due; those of the table only if it is partitioned."""
    with redact_errors("creating partitions"):
        days = ledger.create_partitions(login_database.url)
        created = migrate.create_partitions(login_database.url)
    if created is None:
        context.log.info("user_logins is not partitioned by month: no partition is needed")
    else:
        context.log.info("created %d partitions", created)
    context.log.info("created %d partitions of the ledger", days)


@job(
    name=CREATE_PARTITIONS,
    executor_def=in_process_executor,
    description="Creates the monthly partitions of user_logins, up to three months ahead, and the"
    " daily partitions of the ledger, up to two days ahead.",
)
def create_partitions() -> None:
    """Create the partitions that are due."""
    create_due_partitions()


partition_schedule = ScheduleDefinition(
    name="create_partitions_nightly",
    job=create_partitions,
    cron_schedule="37 2 * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Creates the partitions of user_logins and of the ledger that are due.",
)


@op(
    description="Drops the days of the ledger that are older than the setting, and keeps their"
    " counts by batch.",
)
def drop_old_days(
    context: OpExecutionContext, config: PruneLedgerConfig, login_database: LoginDatabaseResource
) -> None:
    """Drop days that SQS cannot deliver any more, each in a transaction of its own."""
    with redact_errors("pruning the ledger"):
        for dropped in ledger.prune(login_database.url, config.keep_days):
            context.log.info("dropped %s with %d messages", dropped.day, dropped.messages)


@job(
    name=PRUNE_LEDGER,
    executor_def=in_process_executor,
    description="Drops the days of the ledger that SQS cannot deliver any more.",
)
def prune_ledger() -> None:
    """Drop old days of the ledger."""
    drop_old_days()


def ledger_schedule(keep_days: int) -> ScheduleDefinition:
    """Return the schedule that prunes the ledger each night."""
    return ScheduleDefinition(
        name="prune_ledger_nightly",
        job=prune_ledger,
        cron_schedule="57 2 * * *",
        run_config={"ops": {"drop_old_days": {"config": {"keep_days": keep_days}}}},
        default_status=DefaultScheduleStatus.RUNNING,
        description=f"Drops the days of the ledger that are older than {keep_days} days.",
    )


# A separate job: its cost grows with the table, and the cost of a batch must not.
check_tokens = define_asset_job(
    CHECK_TOKENS,
    selection=AssetSelection.checks(every_token_is_well_formed),
    description="Looks at the tokens of every row of user_logins.",
    executor_def=in_process_executor,
)

tokens_schedule = ScheduleDefinition(
    name="check_tokens_nightly",
    job=check_tokens,
    cron_schedule="27 4 * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Looks at the tokens of every row of user_logins each night.",
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
