"""Re-mask a field page by page, until no token is under an old key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.masking.fields import MaskedField
from fetch_mask_assets.operations.rotation.postgres import RemaskJob, TokenTable
from fetch_mask_assets.operations.rotation.remask_plan import count_unopened, plan_remask
from fetch_mask_assets.operations.rotation.token_ranges import (
    ALL_TEXTS,
    TextRange,
    ranges_outside,
)

TOKENS_PER_PAGE = 500
MAX_PASSES = 20
"""More passes than this are needed only while runs keep masking with an old key."""

_TOKENS_PER_CHECK = 20_000


@dataclass(frozen=True, slots=True)
class RemaskProgress:
    """The progress of a field's re-masking: distinct tokens replaced, rows changed, passes.

    `unfinished` counts earlier re-maskings that were interrupted and that this one resumes.
    """

    tokens: int = 0
    rows: int = 0
    passes: int = 0
    unfinished: int = 0


def remask_field(
    table: TokenTable, masker: FieldMasker, on_progress: Callable[[RemaskProgress], None]
) -> RemaskProgress:
    """Bring a field's tokens under the primary key, until a pass changes nothing or `MAX_PASSES`.

    The table itself is the state: after an interruption the next call continues, and the audit
    shows that the earlier one did not end. Links are committed before the rows that need them
    change, so equal values are equal at every moment.

    Args:
        table: the tokens; new ones under old keys may arrive during the call.
        masker: the field's keys; tokens that do not open are not changed.
        on_progress: called after each page of tokens with the progress so far.

    Raises:
        DatabaseError: the database refused, or failed in every attempt.
    """
    job = table.begin(masker)
    progress = RemaskProgress(unfinished=job.unfinished)
    while progress.passes < MAX_PASSES:
        rows_before = progress.rows
        for tokens in _old_tokens(table, masker):
            progress = _remask_page(table, masker, job, tokens, progress)
            on_progress(progress)
        progress = replace(progress, passes=progress.passes + 1)
        if progress.rows == rows_before:
            break
    table.finish(job)
    return progress


def unopened_tokens(table: TokenTable, masker: FieldMasker) -> dict[str, int]:
    """Count the distinct tokens of the whole table that do not open, by reason.

    Raises:
        DatabaseError: they cannot be read.
    """
    counts: Counter[str] = Counter()
    for tokens in _pages(table, masker.field, ALL_TEXTS, _TOKENS_PER_CHECK):
        counts.update(count_unopened(masker, tokens))
    return dict(counts)


def _remask_page(
    table: TokenTable,
    masker: FieldMasker,
    job: RemaskJob,
    tokens: Sequence[str],
    progress: RemaskProgress,
) -> RemaskProgress:
    plan = plan_remask(masker, tokens)
    table.link(job, plan)
    rows = table.replace(job, plan.replacements)
    return replace(
        progress, tokens=progress.tokens + len(plan.replacements), rows=progress.rows + rows
    )


def _old_tokens(table: TokenTable, masker: FieldMasker) -> Iterator[list[str]]:
    for outside in ranges_outside(masker.field, masker.primary_key_id):
        yield from _pages(table, masker.field, outside, TOKENS_PER_PAGE)


def _pages(
    table: TokenTable, field: MaskedField, within: TextRange, page_size: int
) -> Iterator[list[str]]:
    while page := table.tokens(field, within, page_size):
        yield page
        within = within.after(page[-1])
