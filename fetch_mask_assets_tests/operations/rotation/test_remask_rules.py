"""The rules of a re-masking compare groups of equal values before and after."""

from __future__ import annotations

import polars as pl
import pytest

from fetch_mask_assets.operations.rotation.remask_rules import (
    REMASK_RULES,
    FieldComparison,
    FieldSnapshot,
)


@pytest.mark.parametrize(
    ("after", "loaded", "broken"),
    [
        ({"A": 2, "b": 1, None: 1}, 0, {}),
        ({"A": 3, "b": 1, "c": 2, None: 1}, 3, {}),
        ({"A": 3, "b": 1, None: 1}, 0, {"row_count_unchanged": 1}),
        ({"A": 1, "b": 2, None: 1}, 0, {"equal_values_stay_equal": 1}),
        ({"A": 2, "x": 1, None: 1}, 0, {"equal_values_stay_equal": 1}),
        ({"A": 2, "b": 1}, 0, {"row_count_unchanged": 1, "equal_values_stay_equal": 1}),
        ({"a": 2, "b": 1, None: 1}, 0, {"equal_values_stay_equal": 1}),
    ],
)
def test_groups_are_followed_along_their_links(
    after: dict[str | None, int], loaded: int, broken: dict[str, int]
) -> None:
    links = {"a": "A", "unused": "u"}
    compared = FieldComparison(
        field="ip",
        before=_groups({"a": 2, "b": 1, None: 1}, {}, 10),
        after=_groups(after, links, 10 + loaded),
        rows_left=0,
        unopened={},
    )
    assert _broken(compared) == broken


def test_merged_groups_are_counted() -> None:
    compared = FieldComparison(
        field="ip",
        before=_groups({"a": 2, "b": 1}, {}, 0),
        after=_groups({"A": 3}, {"a": "A", "b": "A"}, 0),
        rows_left=4,
        unopened={"altered": 2, "not_a_token": 1},
    )
    assert _broken(compared) == {
        "equal_values_stay_equal": 1,
        "all_rows_under_primary_key": 4,
        "tokens_can_be_unmasked": 3,
    }


def test_an_empty_table_keeps_every_rule() -> None:
    nothing = _groups({}, {}, 0)
    assert _broken(FieldComparison("ip", nothing, nothing, 0, {})) == {}


def _broken(compared: FieldComparison) -> dict[str, int]:
    counts = {rule.name: rule.count_violations(compared) for rule in REMASK_RULES}
    return {name: count for name, count in counts.items() if count}


def _groups(rows: dict[str | None, int], links: dict[str, str], loaded: int) -> FieldSnapshot:
    return FieldSnapshot(
        pl.DataFrame({"token": list(rows), "rows": list(rows.values())}, _GROUPS),
        pl.DataFrame({"old_token": list(links), "new_token": list(links.values())}, _LINKS),
        loaded,
    )


_GROUPS = {"token": pl.String(), "rows": pl.Int64()}


_LINKS = {"old_token": pl.String(), "new_token": pl.String()}
