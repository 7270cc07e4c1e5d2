"""The rules of a re-masking: they compare a field before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import polars as pl


@dataclass(frozen=True, slots=True)
class FieldSnapshot:
    """A field's groups of equal values as readers of the view see them, at one moment.

    Attributes:
        groups: `token` (null where erased) and `rows`.
        links: `old_token` and `new_token`.
        loaded: the rows that all batches have loaded.
    """

    groups: pl.DataFrame = dataclass_field(repr=False)
    links: pl.DataFrame = dataclass_field(repr=False)
    loaded: int

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.groups["rows"].sum())


@dataclass(frozen=True, slots=True)
class FieldComparison:
    """A field before and after a re-masking.

    Attributes:
        field: the field's name.
        before: the snapshot before.
        after: the snapshot after.
        rows_left: rows that are not under the primary key.
        unopened: distinct tokens that do not open, by reason.
    """

    field: str
    before: FieldSnapshot
    after: FieldSnapshot
    rows_left: int
    unopened: Mapping[str, int]

    @property
    def loaded_during_run(self) -> int:
        """The rows that batches loaded between the snapshots."""
        return self.after.loaded - self.before.loaded


@dataclass(frozen=True, slots=True)
class RemaskRule:
    """A rule: its name and description, the remedy, and the count of its violations."""

    name: str
    description: str
    remedy: str
    count_violations: Callable[[FieldComparison], int]


def _unexplained_rows(compared: FieldComparison) -> int:
    return abs(compared.after.rows - compared.before.rows - compared.loaded_during_run)


def _changed_groups(compared: FieldComparison) -> int:
    """Count the groups that lost rows, and those that merged with another."""
    expected = _groups_by_current_token(compared)
    merged = expected.group_by("token").agg(pl.len()).select((pl.col("len") - 1).sum()).item()
    now = compared.after.groups.group_by("token").agg(now=pl.col("rows").sum())
    lost = (
        expected.group_by("token")
        .agg(pl.col("rows").sum())
        .join(now, on="token", how="left", nulls_equal=True)
        .filter(pl.col("now").fill_null(0) < pl.col("rows"))
    )
    return int(merged) + lost.height


def _groups_by_current_token(compared: FieldComparison) -> pl.DataFrame:
    """Return the groups of the first snapshot, each under the token that its links lead to."""
    before = compared.before.groups.group_by("token").agg(pl.col("rows").sum())
    links = compared.after.links
    return before.join(links, left_on="token", right_on="old_token", how="left").select(
        token=pl.coalesce("new_token", "token"), rows="rows"
    )


REMASK_RULES = (
    RemaskRule(
        "row_count_unchanged",
        "The number of rows changed only by the rows that batches loaded during the run.",
        "Another session inserted or deleted rows of user_logins during the run; the job does"
        " neither. Find out which session it was.",
        _unexplained_rows,
    ),
    RemaskRule(
        "equal_values_stay_equal",
        "Equal rows stayed equal and different rows stayed different: no group of equal values"
        " lost a row or merged with another.",
        "Erasures during the run make groups smaller: run the job again. Groups merge if the links"
        " of an earlier rotation were missing before the run. Any other cause is a defect: keep the"
        " old keys, and report it.",
        _changed_groups,
    ),
    RemaskRule(
        "all_rows_under_primary_key",
        "Every row is under the primary key.",
        "A run that started with the old keys committed after the last pass: when all such runs"
        " have ended, run the job again. Tokens that do not open are not changed.",
        lambda compared: compared.rows_left,
    ),
    RemaskRule(
        "tokens_can_be_unmasked",
        "Every token of the table can be unmasked.",
        "not_a_token: the rows are older than the masking, or come from another writer."
        " unknown_key: a key is missing from the keyset or disabled. altered: the token was changed"
        " in the table; restore those rows from a backup.",
        lambda compared: sum(compared.unopened.values()),
    ),
)
