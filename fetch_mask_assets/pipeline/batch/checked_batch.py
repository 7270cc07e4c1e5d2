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
    """A masked batch and the rules that it breaks: how often each, by the rule's name.

    The rules are applied when it is made, so no batch can have the verdict on another.
    """

    batch: MaskedBatch = field(repr=False)
    broken: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Applies the rules."""
        # To a copy, so that what the rules compute and keep is released with it.
        object.__setattr__(self, "broken", broken_rules(replace(self.batch)))

    @property
    def masked(self) -> pl.DataFrame:
        """The masked frame, of `MASKED_SCHEMA`; a change in place does not reach the batch."""
        return self.batch.masked.clone()

    @property
    def keyring(self) -> Keyring:
        """The keys that the batch is masked with."""
        return self.batch.keyring


def mask_and_check(raw: pl.DataFrame, keyring: Keyring) -> CheckedBatch:
    """Masks a batch, applies every rule, and quarantines the few rows that break one.

    Args:
        raw: a frame of `RAW_SCHEMA`.
        keyring: the keys to mask with.
    """
    batch = MaskedBatch(raw, mask_batch(raw, keyring), keyring)
    checked = CheckedBatch(batch)
    masked = quarantine_violations(batch, checked.broken)
    return checked if masked is batch.masked else CheckedBatch(replace(batch, masked=masked))
