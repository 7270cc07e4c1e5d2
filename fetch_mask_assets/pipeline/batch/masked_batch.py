"""A masked batch beside the messages it was made of, as the masking rules examine it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.masking.canonical_columns import canonical_column
from fetch_mask_assets.masking.fields import MASKED_FIELDS, MaskedField
from fetch_mask_assets.pipeline.batch.frames import MASKED_SCHEMA
from fetch_mask_assets.pipeline.batch.original_values import original_column, original_values
from fetch_mask_assets.pipeline.contract.ordinary_bodies import ROW


@dataclass(frozen=True)
class MaskedBatch:
    """The raw and the masked frame of one batch, and the keys.

    Without slots: results that several rules need are computed once and kept.
    """

    raw: pl.DataFrame
    masked: pl.DataFrame
    keyring: Keyring

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The masked rows beside their bodies, up to the height of the shorter frame."""
        height = min(self.raw.height, self.masked.height)
        rows = complete(self.masked).head(height)
        return rows.with_columns(body=self.raw["body"].head(height)).with_row_index(ROW)

    @cached_property
    def logins(self) -> pl.DataFrame:
        """The masked logins with their original values, parsed apart from the decoder.

        Rows without a required value are left out; another rule counts them.
        """
        logins = self.rows.filter(pl.col("reason").is_null())
        originals = original_values(logins["body"])
        required = [original_column(field) for field in MASKED_FIELDS if field.is_required]
        return logins.drop("body").with_columns(originals).drop_nulls(required)

    @cached_property
    def tokens(self) -> dict[str, pl.DataFrame]:
        """The distinct tokens of each field, by its name.

        The columns are `token`, `key_id`, which is null for a text that is not a token, and
        `opened`, the canonical value, which is null for a text that is not a genuine token.
        """
        masked = complete(self.masked)
        return {masker.field.name: _tokens(masked, masker) for masker in self.keyring.maskers}

    @cached_property
    def pairs(self) -> dict[str, pl.DataFrame]:
        """The distinct pairs of value and token of each field, by its name.

        The columns are `original`, `token`, `canonical`, and `is_genuine`: whether the token opens
        to the value.
        """
        return {
            field.name: _pairs(self.logins, field, self.tokens[field.name])
            for field in MASKED_FIELDS
        }


@dataclass(frozen=True, slots=True)
class MaskingRule:
    """A rule that a masked batch must keep: its name, its sentence, the remedy, and its count.

    `count_violations` counts the rows, tokens or values that break it. `rows` gives the numbers of
    all rows that break it, for a rule on single rows; None for a rule on the batch as a whole.
    """

    name: str
    description: str
    remedy: str
    count_violations: Callable[[MaskedBatch], int]
    rows: Callable[[MaskedBatch], Iterable[int]] | None = None


def complete(masked: pl.DataFrame) -> pl.DataFrame:
    """The frame with all columns of the schema; those that are missing or retyped are null."""
    return masked.with_columns(
        pl.lit(None, kind).alias(name)
        for name, kind in MASKED_SCHEMA.items()
        if masked.schema.get(name) != kind
    )


def _tokens(masked: pl.DataFrame, masker: FieldMasker) -> pl.DataFrame:
    tokens = masked.select(token=masker.field.column).drop_nulls().unique()
    opened = masker.open_column(tokens["token"]).rename({"canonical": "opened"})
    return tokens.hstack(opened)


def _pairs(logins: pl.DataFrame, field: MaskedField, tokens: pl.DataFrame) -> pl.DataFrame:
    pairs = logins.select(original=original_column(field), token=field.column).drop_nulls().unique()
    canonical = canonical_column(field.form, pairs["original"]).alias("canonical")
    opened = pairs.with_columns(canonical).join(tokens, on="token", how="left")
    is_genuine = pl.col("canonical").eq_missing(pl.col("opened"))
    return opened.drop_nulls("canonical").select(*pairs.columns, "canonical", is_genuine=is_genuine)
