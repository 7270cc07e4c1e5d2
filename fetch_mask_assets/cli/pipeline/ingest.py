"""`fetch-mask ingest`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import click
from dagster import DagsterInstance, Definitions, ExecuteInProcessResult
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.instance import dagster_instance, describe_failure
from fetch_mask_assets.cli.progress import progress_text
from fetch_mask_assets.cli.wording import counted
from fetch_mask_assets.definitions import defs
from fetch_mask_assets.defs.assets import RAW_LOGIN_BATCH
from fetch_mask_assets.defs.jobs import INGEST_LOGINS
from fetch_mask_assets.defs.local_runs import fail_orphaned_runs, own_process_tags
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.pipeline import ingestion
from fetch_mask_assets.pipeline.ingestion import BatchRun, IngestEnd, IngestOptions, IngestResult
from fetch_mask_assets.pipeline.queue.limits import DrainEnd
from fetch_mask_assets.pipeline.queue.sqs import LoginQueue
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.pipeline.warehouse.readiness import findings, require_all_ok

# Beyond the visibility timeout, because the queue's counts lag.
_SLACK_SECONDS = 30

_WARNINGS: Mapping[IngestEnd, str] = {
    IngestEnd.IN_FLIGHT: "Messages are still in flight: another consumer has received them.",
    IngestEnd.NOTHING_RECEIVED: (
        "By its counts the queue has messages waiting, but receives return none: other consumers"
        " may have reached the in-flight limit, or the counts are old. Run the same command later."
    ),
}


class IngestError(FetchMaskError):
    """A run failed."""

    def __init__(self, failure: str) -> None:
        """Names the run and why it failed."""
        super().__init__(
            f"{failure} Messages that were not committed go back to the queue; once the cause is"
            " fixed, the same command takes them."
        )


@click.command()
@click.option("--max-batches", type=click.IntRange(min=1), help="Stop after this many batches.")
@click.option("--no-wait", is_flag=True, help="Do not wait for messages that are in flight.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--verbose", is_flag=True, help="Print Dagster's log to standard error.")
def ingest(*, max_batches: int | None, no_wait: bool, as_json: bool, verbose: bool) -> None:
    """Load messages from the queue into the table until the queue is dry.

    Runs the Dagster job ingest_logins in this process, batch after batch. Messages in flight, which
    another run has received or a killed run had received, come back after the visibility timeout;
    the command waits for them. Exit code 1 if a run failed; its messages go back to the queue.
    """
    options = IngestOptions(max_batches, 0 if no_wait else max_wait_seconds())
    with connections.queue() as queue:
        result = run_ingestion(queue, options, verbose=verbose)
    click.echo(json.dumps(result.as_counts()) if as_json else summary(result))
    if result.failure:
        raise IngestError(result.failure)


def max_wait_seconds() -> int:
    """The seconds after which a message in flight is visible again, or deleted.

    Raises:
        SettingError: a number in the environment is out of its bounds.
    """
    return connections.tuning().visibility_seconds + _SLACK_SECONDS


def summary(result: IngestResult) -> str:
    """The counts of an ingestion as a sentence."""
    balance = result.total
    return (
        f"Received {counted(balance.received, 'message', 'messages')}"
        f" in {counted(len(result.balances), 'batch', 'batches')}: {balance.loaded} loaded,"
        f" {balance.quarantined} quarantined, {balance.already_known} already known."
    )


def run_ingestion(
    queue: LoginQueue,
    options: IngestOptions,
    *,
    verbose: bool,
    definitions: Definitions = defs,
    tags: Mapping[str, str] | None = None,
) -> IngestResult:
    """Ingests from a queue in this process, once everything that a run needs is ready.

    Args:
        queue: the queue to read the depth of.
        options: when to end.
        verbose: whether to print Dagster's log.
        definitions: those whose job takes messages from that queue.
        tags: more tags for the runs.

    Raises:
        NotReadyError: something is not ready; nothing was received.
        InstanceError: Dagster's storage cannot be used.
        IngestError: Dagster's storage failed during a run.
    """
    database = connections.database()
    require_all_ok(findings(database, connections.keysets(), queue, commits=True))
    with dagster_instance() as instance, progress_text() as on_progress:
        job = _IngestJob(instance, database, definitions, verbose, tags or {})
        result = ingestion.ingest(job.run, queue.depth, on_progress, options)
    if result.end in _WARNINGS:
        click.echo(_WARNINGS[result.end], err=True)
    return result


@dataclass(frozen=True, slots=True)
class _IngestJob:
    instance: DagsterInstance
    database: LoginDatabase
    definitions: Definitions
    verbose: bool
    tags: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> BatchRun:
        """Runs the job once in this process."""
        result = self._execute()
        counts = self.database.batch_counts(result.run_id)
        balance = counts.balance if counts else None
        if not result.success:
            return BatchRun(balance, describe_failure(result))
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
            return self.definitions.resolve_job_def(INGEST_LOGINS).execute_in_process(
                instance=self.instance,
                raise_on_error=False,
                tags={**own_process_tags(), **self.tags},
                run_config={"loggers": {"console": {"config": {"log_level": level}}}},
            )
        except (DagsterPostgresException, SQLAlchemyError) as error:
            raise IngestError(
                f"Dagster's storage failed during a run ({type(error).__name__}): check"
                " DAGSTER_HOME and its database."
            ) from None
