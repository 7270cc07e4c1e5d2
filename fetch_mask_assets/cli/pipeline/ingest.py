"""`fetch-mask ingest`."""

from __future__ import annotations

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.pipeline.ingestion import IngestError, ingestion


@click.command()
@click.option("--max-batches", type=click.IntRange(min=1), help="Stop after so many batches.")
@click.option("--no-wait", is_flag=True, help="Do not wait for messages that are in flight.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--verbose", is_flag=True, help="Print Dagster's log to standard error.")
def ingest(*, max_batches: int | None, no_wait: bool, as_json: bool, verbose: bool) -> None:
    """Take messages from the queue to the table until the queue is dry.

    Runs the Dagster job ingest_logins in this process, batch after batch. Messages that another
    run holds, or that a run which was killed held, come back after the visibility timeout:
    they are waited for. Exit code 1 if a run failed; its messages go back to the queue.
    """
    with connections.queue() as queue, ingestion(queue, verbose=verbose) as work:
        outcome = work.run(max_batches=max_batches, wait=not no_wait)
    click.echo(outcome.as_json() if as_json else outcome.sentence())
    if outcome.failed_run:
        raise IngestError(outcome.failed_run)
