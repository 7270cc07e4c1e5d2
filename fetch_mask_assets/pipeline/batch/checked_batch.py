"""A masked batch with the verdict of the masking rules, computed once for each batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.pipeline.batch.frames import mask_batch
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch
from fetch_mask_assets.pipeline.batch.masking_rules import broken_rules, quarantine_violations


@dataclass(frozen=True, slots=True, eq=False)
class CheckedBatch:
    """A masked batch and the rules that it breaks: how often each, by the rule's name."""

    batch: MaskedBatch = field(repr=False)
    broken: Mapping[str, int]

    @property
    def masked(self) -> pl.DataFrame:
        """The masked frame, of `MASKED_SCHEMA`."""
        return self.batch.masked

    @property
    def keyring(self) -> Keyring:
        """The keys that the batch is masked with."""
        return self.batch.keyring


def mask_and_check(raw: pl.DataFrame, keyring: Keyring) -> CheckedBatch:
    """Masks a batch, quarantines the few rows that break a rule, and applies every rule.

    Args:
        raw: a frame of `RAW_SCHEMA`.
        keyring: the keys to mask with.
    """
    batch = MaskedBatch(raw, mask_batch(raw, keyring), keyring)
    masked = quarantine_violations(batch)
    if masked is not batch.masked:
        batch = replace(batch, masked=masked)
    return CheckedBatch(batch, broken_rules(batch))
