"""`fetch-mask ingest`; an empty queue needs no run, and so no import of Dagster."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.imports import without_garbage_collection
from fetch_mask_assets.cli.pipeline import last_run
from fetch_mask_assets.cli.wording import counted
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.pipeline.ingestion import IngestEnd, IngestOptions, IngestResult
from fetch_mask_assets.pipeline.queue.limits import DrainLimits
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue
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

    An empty queue gets a run only if the last one is half of LOGIN_FRESHNESS_SECONDS ago or failed.
    """
    options = IngestOptions(max_batches, 0 if no_wait else max_wait_seconds())
    with _sigterm_as_interrupt(), connections.queue() as queue:
        require_ready(queue)
        result = IngestResult() if _needs_no_run(queue) else _run(queue, options, verbose=verbose)
    warn_of(result.end)
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


def require_ready(queue: LoginQueue) -> None:
    """Requires everything that a run needs, before the first receive.

    Raises:
        NotReadyError: something is not ready; nothing was received.
    """
    database = connections.database()
    require_all_ok(findings(database, connections.keysets(), queue, commits=True))


def warn_of(end: IngestEnd) -> None:
    """Print why an ingestion left messages on the queue."""
    if end in _WARNINGS:
        click.echo(_WARNINGS[end], err=True)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that messages that it holds are released."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(queue: LoginQueue, options: IngestOptions, *, verbose: bool) -> IngestResult:
    with without_garbage_collection():
        from fetch_mask_assets.cli.pipeline import ingest_runs  # noqa: PLC0415 (needs Dagster)

    return ingest_runs.ingest_logins(queue, options, verbose=verbose)


def _needs_no_run(queue: LoginQueue) -> bool:
    """Whether the queue is empty and user_logins counts as fresh for long enough."""
    tuning = connections.tuning()
    return last_run.was_within(tuning.freshness_seconds / 2) and queue.is_empty(
        DrainLimits.of(tuning)
    )
