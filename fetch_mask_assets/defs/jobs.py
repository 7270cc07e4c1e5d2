"""The jobs: one batch through the chain, and the deletion of old runs."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from dagster import (
    AssetSelection,
    Config,
    DagsterInstance,
    DagsterRunStatus,
    OpExecutionContext,
    RunsFilter,
    define_asset_job,
    in_process_executor,
    job,
    op,
)
from pydantic import Field

from fetch_mask_assets.defs.assets import CHAIN
from fetch_mask_assets.defs.checks import CHAIN_CHECKS

INGEST_LOGINS = "ingest_logins"
PRUNE_RUNS = "prune_runs"

MAX_RUN_SECONDS = 1_800
"""A batch takes seconds: a run that takes longer hangs, and Dagster ends it."""

_PRUNE_AT_ONCE = 100
_FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]

ingest_logins = define_asset_job(
    INGEST_LOGINS,
    selection=AssetSelection.assets(*CHAIN).without_checks() | AssetSelection.checks(*CHAIN_CHECKS),
    description="Loads one batch from the queue into the table, in one process and in memory.",
    executor_def=in_process_executor,
    tags={"dagster/max_runtime": str(MAX_RUN_SECONDS)},
)


class PruneConfig(Config):
    """The runs to keep."""

    keep_days: int = Field(description="Days for which a finished run is kept.", ge=1)


@op(description="Deletes finished runs, with their events, that are older than the setting.")
def delete_old_runs(context: OpExecutionContext, config: PruneConfig) -> None:
    """Open-source Dagster keeps every run, about 45 kB of events each."""
    before = datetime.now(UTC) - timedelta(days=config.keep_days)
    deleted = 0
    for run_ids in _finished_before(context.instance, before):
        for run_id in run_ids:
            context.instance.delete_run(run_id)
        deleted += len(run_ids)
    context.log.info("deleted %d runs older than %d days", deleted, config.keep_days)


@job(
    name=PRUNE_RUNS,
    executor_def=in_process_executor,
    description="Deletes old runs from Dagster's storage. The history of checks stays.",
)
def prune_runs() -> None:
    """Deletes old runs."""
    delete_old_runs()


def _finished_before(instance: DagsterInstance, before: datetime) -> Iterator[Sequence[str]]:
    old = RunsFilter(statuses=_FINISHED, updated_before=before)
    while run_ids := instance.get_run_ids(old, limit=_PRUNE_AT_ONCE):
        yield run_ids
