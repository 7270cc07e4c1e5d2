"""`fetch-mask dead-letters`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.imports import without_garbage_collection
from fetch_mask_assets.cli.pipeline import ingest
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.pipeline.ingestion import IngestOptions
from fetch_mask_assets.pipeline.queue.backlog import QueueDepth
from fetch_mask_assets.pipeline.queue.dead_letters import DeadLetterSummary, summarize
from fetch_mask_assets.pipeline.queue.dry_run import DRY_RUN_SECONDS, dry_run_messages
from fetch_mask_assets.pipeline.queue.limits import DrainLimits
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue

_SAMPLE = 1_000
_SAMPLE_BYTES = 64 * 2**20


class DeadLettersError(FetchMaskError):
    """There is no dead-letter queue, or messages remain on it."""


@click.group("dead-letters")
def dead_letters() -> None:
    """Show and drain the dead-letter queue.

    SQS moves a message there when it was received as often as the login queue's redrive policy
    allows. The queue is LOGIN_DEAD_LETTER_QUEUE_URL, or the one that the policy names.
    """


@dead_letters.command()
@click.option(
    "--sample",
    type=click.IntRange(1, 100_000),
    default=_SAMPLE,
    show_default=True,
    help="Messages to receive.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(*, sample: int, as_json: bool) -> None:
    """Count the messages, and show ages and body profiles of a sample.

    A body profile is the set of keys that a body has: those of the contract by name, others as a
    number. The sample is received and released at once; no value is shown.
    """
    with _dead_letter_queue() as queue:
        depth = queue.depth()
        try:
            raw = queue.receive(_sample_limits(sample)).raw
            poison = dry_run_messages(
                raw, range(raw.height), lambda: queue.extend_visibility(DRY_RUN_SECONDS)
            ).excluded
            found = summarize(raw, poison)
        finally:
            queue.release(lambda _: 0)
    click.echo(_json(depth, found) if as_json else "\n".join(_lines(depth, found)))


@dead_letters.command()
@click.option("--max-batches", type=click.IntRange(min=1), help="Stop after this many batches.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--verbose", is_flag=True, help="Print Dagster's log to standard error.")
def drain(*, max_batches: int | None, as_json: bool, verbose: bool) -> None:
    """Load messages from the dead-letter queue into the table until it is dry.

    Runs the Dagster job ingest_logins on that queue, with the same masking, rules, ledger and
    quarantine. A message that is already committed does not load again. Exit code 1 if a run failed
    or messages remain on the queue; nothing is lost.
    """
    with without_garbage_collection():
        from fetch_mask_assets.cli.pipeline import ingest_runs  # noqa: PLC0415 (needs Dagster)

    options = IngestOptions(max_batches, ingest.max_wait_seconds(), awaits_returned=False)
    with _dead_letter_queue() as queue:
        ingest.require_ready(queue)
        result = ingest_runs.ingest_dead_letters(queue, options, verbose=verbose)
        ingest.warn_of(result.end)
        depth = queue.depth()
    remaining = depth.waiting + depth.hidden
    click.echo(
        json.dumps({**result.as_counts(), "remaining": remaining})
        if as_json
        else f"{ingest.summary(result)} {remaining} remain on the dead-letter queue."
    )
    if result.failure:
        raise ingest.IngestError(result.failure)
    if remaining and max_batches is None:
        raise DeadLettersError(
            f"{remaining} messages remain on the dead-letter queue: another consumer has received"
            " them, or they cannot be masked. See docs/dead-letters.md."
        )


@contextmanager
def _dead_letter_queue() -> Iterator[LoginQueue]:
    """A connection to the dead-letter queue."""
    with connections.queue() as login_queue:
        url = connections.dead_letter_queue_url(login_queue)
    if url is None:
        raise DeadLettersError(
            "The login queue has no dead-letter queue: give it a redrive policy with"
            " maxReceiveCount 5, or set LOGIN_DEAD_LETTER_QUEUE_URL."
        )
    with connections.queue(url) as queue:
        yield queue


def _sample_limits(sample: int) -> DrainLimits:
    limits = DrainLimits.of(connections.tuning())
    return replace(limits, messages=sample, bytes=_SAMPLE_BYTES)


def _json(depth: QueueDepth, found: DeadLetterSummary) -> str:
    return json.dumps(
        {
            "waiting": depth.waiting,
            "in_flight": depth.in_flight,
            "delayed": depth.delayed,
            "sampled": found.sampled,
            "oldest_sent_at": _text(found.oldest),
            "newest_sent_at": _text(found.newest),
            "profiles": found.profiles,
        }
    )


def _lines(depth: QueueDepth, found: DeadLetterSummary) -> Iterator[str]:
    yield f"{depth.waiting} messages wait on the dead-letter queue, {depth.hidden} are hidden."
    if not found.sampled:
        return
    yield (
        f"Of {found.sampled} sampled, the oldest was sent {_text(found.oldest)}, the newest"
        f" {_text(found.newest)}."
    )
    yield from (f"{count:8}  {profile}" for profile, count in found.profiles.items())


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
