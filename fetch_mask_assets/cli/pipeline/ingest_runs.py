"""Runs of the Dagster job ingest_logins in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dagster import DagsterInstance, ExecuteInProcessResult, JobDefinition
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.instance import InstanceError, dagster_instance, describe_failure
from fetch_mask_assets.cli.pipeline import last_run
from fetch_mask_assets.cli.progress import progress_text
from fetch_mask_assets.defs.assets import RAW_LOGIN_BATCH
from fetch_mask_assets.defs.ingestion import ingestion_definitions, login_queue_resource
from fetch_mask_assets.defs.jobs import INGEST_LOGINS
from fetch_mask_assets.defs.local_runs import QUEUE_TAG, fail_orphaned_runs, own_process_tags
from fetch_mask_assets.defs.resources import LoginQueueResource
from fetch_mask_assets.pipeline import ingestion
from fetch_mask_assets.pipeline.ingestion import BatchRun, IngestOptions, IngestResult
from fetch_mask_assets.pipeline.queue.limits import DrainEnd
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase


def ingest_logins(queue: LoginQueue, options: IngestOptions, *, verbose: bool) -> IngestResult:
    """Ingests from the login queue, over the given connection.

    Raises:
        InstanceError: Dagster's storage cannot be used, or failed during a run.
    """
    return _ingest(queue, options, login_queue_resource(connections.tuning()), verbose=verbose)


def ingest_dead_letters(
    queue: LoginQueue, options: IngestOptions, *, verbose: bool
) -> IngestResult:
    """Ingests from the dead-letter queue, where each message has failed before.

    Raises:
        InstanceError: Dagster's storage cannot be used, or failed during a run.
    """
    tags = {QUEUE_TAG: "dead-letters"}
    login_queue = login_queue_resource(connections.tuning(), 1, is_moved=queue.is_fifo)
    return _ingest(queue, options, login_queue, verbose=verbose, tags=tags)


def _ingest(
    queue: LoginQueue,
    options: IngestOptions,
    login_queue: LoginQueueResource,
    *,
    verbose: bool,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> IngestResult:
    tuning = connections.tuning()
    definitions = ingestion_definitions(os.environ, tuning, login_queue.over(queue))
    job = definitions.resolve_job_def(INGEST_LOGINS)
    with dagster_instance() as instance, progress_text() as on_progress:
        runs = _Runs(job, instance, connections.database(), verbose, tags)
        return ingestion.ingest(runs.run, queue.depth, on_progress, options)


@dataclass(frozen=True, slots=True)
class _Runs:
    job: JobDefinition
    instance: DagsterInstance
    database: LoginDatabase
    verbose: bool
    tags: Mapping[str, str]

    def run(self) -> BatchRun:
        """Runs the job once in this process."""
        last_run.forget()
        result = self._execute()
        counts = self.database.batch_counts(result.run_id)
        balance = counts.balance if counts else None
        if not result.success:
            return BatchRun(balance, describe_failure(result))
        # At once: the command may wait for hours for messages in flight, and the table ages.
        last_run.record()
        [event] = result.asset_materializations_for_node(RAW_LOGIN_BATCH.to_python_identifier())
        end_reason, messages, returned = (
            event.metadata[name].value for name in ("end_reason", "messages", "returned_to_queue")
        )
        return BatchRun(
            balance,
            ran_dry=end_reason == DrainEnd.DRY or messages == 0,
            messages=int(str(messages)),
            returned=int(str(returned)),
        )

    def _execute(self) -> ExecuteInProcessResult:
        level = "INFO" if self.verbose else "CRITICAL"
        try:
            fail_orphaned_runs(self.instance)
            return self.job.execute_in_process(
                instance=self.instance,
                raise_on_error=False,
                tags={**own_process_tags(), **self.tags},
                run_config={"loggers": {"console": {"config": {"log_level": level}}}},
            )
        except (DagsterPostgresException, SQLAlchemyError) as error:
            raise InstanceError(
                f"Dagster's storage failed during a run ({type(error).__name__}): check"
                " DAGSTER_HOME and its database. Messages that were not committed go back to the"
                " queue; once the cause is fixed, the same command takes them."
            ) from None
