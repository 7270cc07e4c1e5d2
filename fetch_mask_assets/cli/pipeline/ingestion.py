"""Batch after batch from a queue to the table, in this process, until the queue is dry."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import click
from dagster import (
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
)
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.instance import dagster_instance
from fetch_mask_assets.cli.pipeline.failed_runs import why_failed
from fetch_mask_assets.cli.progress import saying
from fetch_mask_assets.cli.wording import counted
from fetch_mask_assets.definitions import defs
from fetch_mask_assets.defs.assets import RAW_LOGIN_BATCH
from fetch_mask_assets.defs.jobs import INGEST_LOGINS
from fetch_mask_assets.defs.local_runs import fail_dead_runs, own_process_tags
from fetch_mask_assets.errors import FetchMaskError, NotReadyError
from fetch_mask_assets.pipeline.batch.balance import Balance, total
from fetch_mask_assets.pipeline.queue.backlog import NextStep, next_step
from fetch_mask_assets.pipeline.queue.limits import DrainEnd
from fetch_mask_assets.pipeline.queue.sqs import LoginQueue
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.pipeline.warehouse.readiness import findings

_SLACK_SECONDS = 30
_MAX_EMPTY_BATCHES = 3

_NONE_FOUND = (
    "By its counts the queue has messages waiting, and receives find none: other consumers may hold"
    " as many as may be in flight, or the counts are old. The same command takes them later."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an ingestion came to: the balance of each batch, and whether a run failed."""

    balances: tuple[Balance, ...] = ()
    failed_run: str | None = None

    def with_batch(self, balance: Balance) -> Outcome:
        """The same with one more batch."""
        return Outcome((*self.balances, balance), self.failed_run)

    def as_counts(self) -> dict[str, int]:
        """The counts of all batches together, and how many those were."""
        return total(self.balances).as_counts() | {"batches": len(self.balances)}

    def as_json(self) -> str:
        """The counts as one JSON object."""
        return json.dumps(self.as_counts())

    def sentence(self) -> str:
        """The counts for a person."""
        account, batches = total(self.balances), len(self.balances)
        return (
            f"Received {counted(account.received, 'message', 'messages')}"
            f" in {counted(batches, 'batch', 'batches')}: {account.loaded} loaded,"
            f" {account.quarantined} quarantined, {account.already_known} already known."
        )


class IngestError(FetchMaskError):
    """A run failed."""

    def __init__(self, run: str) -> None:
        """Names the run and why it failed."""
        super().__init__(
            f"{run} Messages that were not committed go back to the queue; once the cause is"
            " mended, the same command takes them."
        )


@dataclass(frozen=True, slots=True)
class Ingestion:
    """What an ingestion works with.

    `definitions` and `tags` are those of its runs. `waits_for_left` says whether what a run leaves
    on the queue is worth waiting for: from a dead-letter queue it never goes away.
    """

    instance: DagsterInstance
    database: LoginDatabase
    queue: LoginQueue
    say: Callable[[str], None]
    verbose: bool
    definitions: Definitions
    tags: Mapping[str, str] = field(default_factory=dict)
    waits_for_left: bool = True

    def run(self, *, max_batches: int | None, wait: bool) -> Outcome:
        """Takes batches until the queue is dry, a run fails, or there were so many."""
        outcome, empty = Outcome(), 0
        for number in range(1, (max_batches or sys.maxsize) + 1):
            self.say(f"Batch {number}: {total(outcome.balances).received} messages so far")
            result = _run_job(self)
            counts = self.database.batch_counts(result.run_id)
            if counts:
                outcome = outcome.with_batch(counts.balance)
            if not result.success:
                return Outcome(outcome.balances, why_failed(result))
            drain = _Drain.of(result)
            empty = 0 if drain.messages else empty + 1
            if not _goes_on(self, drain, wait=wait, empty=empty):
                break
        return outcome


@contextmanager
def ingestion(
    queue: LoginQueue,
    *,
    verbose: bool,
    definitions: Definitions = defs,
    tags: Mapping[str, str] | None = None,
    waits_for_left: bool = True,
) -> Iterator[Ingestion]:
    """An ingestion from a queue, once everything that it needs is ready.

    Raises:
        NotReadyError: something is not; nothing was received.
        InstanceError: Dagster's storage cannot be used.
    """
    database = connections.database()
    _require_ready(database, queue)
    with dagster_instance() as instance, saying() as say:
        yield Ingestion(
            instance, database, queue, say, verbose, definitions, tags or {}, waits_for_left
        )


@dataclass(frozen=True, slots=True)
class _Drain:
    """What a run says of its drain: whether it ran dry, what it took on and what it left."""

    ran_dry: bool
    messages: int
    left: int

    @classmethod
    def of(cls, result: ExecuteInProcessResult) -> _Drain:
        [event] = result.asset_materializations_for_node(RAW_LOGIN_BATCH.to_python_identifier())
        ended_by, messages, left = (
            event.metadata[name].value for name in ("ended_by", "messages", "left")
        )
        dry = ended_by == DrainEnd.DRY or messages == 0
        return cls(ran_dry=dry, messages=int(str(messages)), left=int(str(left)))


def _goes_on(work: Ingestion, drain: _Drain, *, wait: bool, empty: int) -> bool:
    """Whether to take another batch, after `empty` in a row that received nothing."""
    staying = 0 if work.waits_for_left else drain.left
    if staying and not drain.messages:
        return False
    step = next_step(work.queue.depth(), ran_dry=drain.ran_dry, staying=staying)
    if step is NextStep.WAIT and wait:
        return _wait_for_messages(work, staying)
    # Counts lag, and a queue at its in-flight limit hands nothing out: this would go on for hours.
    if step is NextStep.RECEIVE and empty >= _MAX_EMPTY_BATCHES:
        click.echo(_NONE_FOUND, err=True)
        return False
    return step is NextStep.RECEIVE


def _wait_for_messages(work: Ingestion, staying: int) -> bool:
    """Waits until hidden messages show or are gone; whether any shows."""
    longest = connections.tuning().visibility_seconds + _SLACK_SECONDS

    def look() -> NextStep:
        depth = work.queue.depth()
        work.say(f"{depth.hidden} messages are in flight: waiting for them")
        return next_step(depth, ran_dry=True, staying=staying)

    attempts = Retrying(
        retry=retry_if_result(lambda step: step is NextStep.WAIT),
        stop=stop_after_delay(longest),
        wait=wait_fixed(1),
    )
    try:
        return attempts(look) is NextStep.RECEIVE
    except RetryError:
        click.echo("Messages are still in flight: another consumer holds them.", err=True)
        return False


def _require_ready(database: LoginDatabase, queue: LoginQueue) -> None:
    found = findings(database, connections.keysets(), queue, commits=True)
    unwell = [each for each in found if not each.ok]
    if unwell:
        raise NotReadyError(
            "Nothing was received: "
            + " ".join(f"[{each.name}] {each.description}" for each in unwell)
        )


def _run_job(work: Ingestion) -> ExecuteInProcessResult:
    level = "INFO" if work.verbose else "CRITICAL"
    try:
        fail_dead_runs(work.instance)
        return work.definitions.resolve_job_def(INGEST_LOGINS).execute_in_process(
            instance=work.instance,
            raise_on_error=False,
            tags={**own_process_tags(), **work.tags},
            run_config={"loggers": {"console": {"config": {"log_level": level}}}},
        )
    except (DagsterPostgresException, SQLAlchemyError) as error:
        raise IngestError(
            f"Dagster's storage went away during a run ({type(error).__name__}): check"
            " DAGSTER_HOME and its database."
        ) from None
