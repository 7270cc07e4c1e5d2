"""The rules that a masked batch must keep.

One tuple gives the asset checks their specs and their results, and the write path its refusal,
so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from fetch_mask_assets.pipeline.batch.frame_rules import (
    EVERY_MESSAGE_ACCOUNTED_FOR,
    NO_FOREIGN_COLUMN,
    SEALED_BODIES_OPEN,
)
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS, LOGIN_DETAILS, MASKED_SCHEMA
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch, MaskingRule, complete
from fetch_mask_assets.pipeline.batch.raw_value_rule import NO_RAW_VALUE
from fetch_mask_assets.pipeline.batch.token_rules import (
    EQUAL_STAYS_EQUAL,
    TOKENS_OPAQUE,
    TOKENS_UNMASK,
    TOKENS_WELL_FORMED,
)
from fetch_mask_assets.pipeline.contract.rejection import Reason

MAX_QUARANTINED_VIOLATIONS = 10
"""More rows than this in one batch that break a rule are a fault of the masking, not of rows."""

MASKING_RULES = (
    EVERY_MESSAGE_ACCOUNTED_FOR,
    NO_FOREIGN_COLUMN,
    NO_RAW_VALUE,
    TOKENS_WELL_FORMED,
    EQUAL_STAYS_EQUAL,
    TOKENS_UNMASK,
    TOKENS_OPAQUE,
    SEALED_BODIES_OPEN,
)


def broken_rules(batch: MaskedBatch) -> dict[str, int]:
    """The rules that a batch breaks, by name, with the number of violations of each."""
    counts = {rule.name: rule.count_violations(batch) for rule in MASKING_RULES}
    return {name: count for name, count in counts.items() if count}


def quarantine_violations(batch: MaskedBatch, broken: Mapping[str, int]) -> pl.DataFrame:
    """The masked frame with the few rows that break a rule turned into rejections.

    Their sealed bodies go to the quarantine, under the rule's name. The frame stays as it is, so
    that the rules refuse it, where it cannot be a fault of single rows: more than
    `MAX_QUARANTINED_VIOLATIONS` of them or more than half of the logins, or frames that do
    not fit each other.

    Args:
        batch: the batch.
        broken: the rules that it breaks, as `broken_rules` gives them.
    """
    if any(rule.name in broken for rule in (EVERY_MESSAGE_ACCOUNTED_FOR, NO_FOREIGN_COLUMN)):
        return batch.masked
    row_rules = [rule for rule in MASKING_RULES if rule.rows and rule.name in broken]
    rows = {row: rule.name for rule in row_rules if rule.rows for row in rule.rows(batch)}
    if not rows or len(rows) > min(MAX_QUARANTINED_VIOLATIONS, batch.logins.height // 2):
        return batch.masked
    return _as_rejections(batch, rows)


def quarantined_violation_count(masked: pl.DataFrame, rule: MaskingRule) -> int:
    """The number of rows of a masked frame that were quarantined for breaking a rule."""
    rows = complete(masked)
    return rows.filter(reason=Reason.BREAKS_MASKING_RULE.value, field=rule.name).height


def _as_rejections(batch: MaskedBatch, broken: Mapping[int, str]) -> pl.DataFrame:
    numbers = sorted(broken)
    messages = batch.raw[numbers].select("body", "message_id").iter_rows()
    rejections = batch.masked[numbers].with_columns(
        *(pl.lit(None, MASKED_SCHEMA[name]).alias(name) for name in LOGIN_COLUMNS + LOGIN_DETAILS),
        reason=pl.lit(Reason.BREAKS_MASKING_RULE.value),
        field=pl.Series([broken[number] for number in numbers], dtype=pl.String),
        sealed_body=pl.Series([batch.keyring.sealer.seal(*each) for each in messages]),
    )
    places = {number: place for place, number in enumerate(numbers)}
    height = batch.masked.height
    both = pl.concat([batch.masked, rejections])
    return both[[height + places[n] if n in places else n for n in range(height)]]
