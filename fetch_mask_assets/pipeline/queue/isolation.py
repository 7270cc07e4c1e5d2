"""Returns poison messages to the queue before a batch is masked."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import polars as pl

from fetch_mask_assets.errors import PoisonError
from fetch_mask_assets.pipeline.queue.dry_run import DRY_RUN_SECONDS, DryRunError, dry_run_messages
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue
from fetch_mask_assets.pipeline.queue.poison import exclude_rows, is_code_fault, suspects

# Short, so that poison reaches the dead-letter queue before the batches that it arrives in.
_POISON_DELAY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class DryRunPolicy:
    """From which receive on a message is dry-run, and for how long messages stay hidden."""

    min_receives: int
    visibility_seconds: int


def return_poison_messages(
    queue: LoginQueue, raw: pl.DataFrame, policy: DryRunPolicy, on_warning: Callable[[str], object]
) -> pl.DataFrame:
    """Masks redelivered messages in another process first; returns those that kill it to the queue.

    Args:
        queue: the queue that the batch was received from.
        raw: the batch, a frame of `RAW_SCHEMA`.
        policy: which messages are dry-run.
        on_warning: called with a sentence if messages are returned.

    Returns:
        The batch without the returned messages.

    Raises:
        PoisonError: every message that was tried kills the process.
        QueueError: the queue refused a request.
    """
    rows = suspects(raw, policy.min_receives)
    if not rows:
        return raw
    hidden_for = policy.visibility_seconds + DRY_RUN_SECONDS
    try:
        result = dry_run_messages(
            raw, rows, on_first_death=lambda: queue.extend_visibility(hidden_for)
        )
    except DryRunError as error:
        on_warning(f"{error} {len(rows)} messages return to the queue without a dry run.")
        # Long, so that a shortage of memory or processes has time to pass.
        return _return(queue, raw, rows, policy.visibility_seconds)
    if is_code_fault(len(rows), len(result.excluded)):
        raise PoisonError(len(rows))
    if result.excluded:
        on_warning(
            f"{len(result.excluded)} messages return to the queue: {len(result.poison)} kill the"
            f" process that masks them, {len(result.untried)} could not be tried in time."
            " See docs/dead-letters.md."
        )
    return _return(queue, raw, result.excluded, _POISON_DELAY_SECONDS)


def _return(
    queue: LoginQueue, raw: pl.DataFrame, rows: Collection[int], delay_seconds: int
) -> pl.DataFrame:
    rest = exclude_rows(raw, rows)
    queue.release_messages(set(raw["message_id"]) - set(rest["message_id"]), delay_seconds)
    return rest
