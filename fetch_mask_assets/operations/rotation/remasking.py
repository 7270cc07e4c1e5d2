"""Bringing old tokens under the new primary key, and the links between the two.

A link says that two tokens of a field stand for one value. Through the links, rows that are
masked again and rows that are not yet are equal at every moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import polars as pl

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.keyset import FieldMasker
from fetch_mask_assets.keys.links import TokenLink, links_of
from fetch_mask_assets.masking.fields import MaskedField
from fetch_mask_assets.masking.token import key_heads, parse_token

NOT_A_TOKEN = "not_a_token"  # noqa: S105 (the name of a kind)
UNKNOWN_KEY = "unknown_key"
ALTERED = "altered"

# Postgres holds no NUL in a text, so nothing is between a text and the same with this behind it.
_MIN_CHARACTER = "\x01"


@dataclass(frozen=True, slots=True)
class TextRange:
    """Texts from `low` to before `high`, in the order of their bytes; None is without an end."""

    low: str
    high: str | None

    def after(self, text: str) -> TextRange:
        """What is left of the range behind one of its texts."""
        return TextRange(text + _MIN_CHARACTER, self.high)


EVERYTHING = TextRange("", None)


@dataclass(frozen=True, slots=True)
class Remasking:
    """What is to become of some tokens: what replaces them, their links, what does not open."""

    replacements: Mapping[str, str]
    links: tuple[TokenLink, ...]
    unopened: Mapping[str, int]


def remask(masker: FieldMasker, tokens: Iterable[str]) -> Remasking:
    """Takes distinct tokens of a field to the primary key.

    Those that do not open are counted by kind and are to be left alone.
    """
    opened, closed = _open(masker, tokens)
    newest = {token: masker.mask(value) for token, value in opened.items()}
    links = tuple(link for value in set(opened.values()) for link in links_of(masker, value))
    return Remasking({old: new for old, new in newest.items() if old != new}, links, closed)


def unopened(masker: FieldMasker, tokens: Iterable[str]) -> Mapping[str, int]:
    """How many of the tokens do not open, by kind."""
    return _open(masker, tokens)[1]


def ranges_under(field: MaskedField, key_id: int) -> tuple[TextRange, ...]:
    """Where the tokens of a key are, among all texts in the order of their bytes."""
    return tuple(TextRange(head, _after(head)) for head in key_heads(field, key_id))


def ranges_outside(field: MaskedField, key_id: int) -> tuple[TextRange, ...]:
    """Where everything else is."""
    inside = ranges_under(field, key_id)
    lows = ["", *(each.high for each in inside)]
    highs = [*(each.low for each in inside), None]
    gaps = zip(lows, highs, strict=True)
    return tuple(TextRange(low, high) for low, high in gaps if low is not None and low != high)


def _open(masker: FieldMasker, tokens: Iterable[str]) -> tuple[dict[str, str], Counter[str]]:
    opened: dict[str, str] = {}
    closed: Counter[str] = Counter()
    for token in tokens:
        try:
            opened[token] = masker.unmask(token)
        except TokenError:
            closed[_why_closed(masker, token)] += 1
    return opened, closed


def _why_closed(masker: FieldMasker, token: str) -> str:
    try:
        key_id = parse_token(masker.field, token).key_id
    except TokenError:
        return NOT_A_TOKEN
    return ALTERED if key_id in masker.check_values else UNKNOWN_KEY


def _after(prefix: str) -> str:
    """The first text, in the order of bytes, that comes after all that start so."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


# What must hold afterwards.


@dataclass(frozen=True, slots=True)
class Groups:
    """A field's groups of equal values as readers of the view see them, at one moment.

    `groups` has `token` (null where erased) and `rows`; `links` has `old_token` and `new_token`;
    `loaded` is the sum of the batch records.
    """

    groups: pl.DataFrame = dataclass_field(repr=False)
    links: pl.DataFrame = dataclass_field(repr=False)
    loaded: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.groups["rows"].sum())


@dataclass(frozen=True, slots=True)
class RemaskFacts:
    """What a field was before and after, what is left, and what does not open, by kind."""

    field: str
    before: Groups
    after: Groups
    rows_left: int
    unopened: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RemaskRule:
    """A rule: its name, what it says, what to do when it is broken, and by how much it is."""

    name: str
    description: str
    remedy: str
    count_broken: Callable[[RemaskFacts], int]


def _unexplained_rows(facts: RemaskFacts) -> int:
    grown = facts.after.rows - facts.before.rows
    return abs(grown - (facts.after.loaded - facts.before.loaded))


def _changed_groups(facts: RemaskFacts) -> int:
    """Groups that lost rows, and groups that fell together."""
    followed = _followed(facts)
    merged = followed.group_by("token").agg(pl.len()).select((pl.col("len") - 1).sum()).item()
    now = facts.after.groups.group_by("token").agg(now=pl.col("rows").sum())
    lost = (
        followed.group_by("token")
        .agg(pl.col("rows").sum())
        .join(now, on="token", how="left", nulls_equal=True)
        .filter(pl.col("now").fill_null(0) < pl.col("rows"))
    )
    return int(merged) + lost.height


def _followed(facts: RemaskFacts) -> pl.DataFrame:
    """The groups from before under the tokens that they are known by now."""
    before = facts.before.groups.group_by("token").agg(pl.col("rows").sum())
    return before.join(facts.after.links, left_on="token", right_on="old_token", how="left").select(
        token=pl.coalesce("new_token", "token"), rows="rows"
    )


REMASK_RULES = (
    RemaskRule(
        "rows_kept",
        "The table has the rows that it had, and those that batches loaded meanwhile.",
        "Someone else wrote to user_logins meanwhile. The job never inserts or deletes a row.",
        _unexplained_rows,
    ),
    RemaskRule(
        "groups_kept",
        "Rows that were equal are equal, rows that were not are not: no group of equal values lost"
        " a row or fell together with another.",
        "Values that were erased meanwhile make groups smaller. Groups fall together if a key was"
        " rotated before this release wrote links. Anything else is a defect: keep the old keys,"
        " and report it.",
        _changed_groups,
    ),
    RemaskRule(
        "only_primary_key",
        "No row is left under another key than the primary one.",
        "A run that had started with the old keys committed after the last pass: once such runs"
        " have ended, run the job again. Tokens that do not open are left as they are.",
        lambda facts: facts.rows_left,
    ),
    RemaskRule(
        "every_token_opens",
        "Every token of the table gives an original back.",
        "not_a_token: rows of before this product, or of another writer. unknown_key: a key is"
        " missing from the keyset or disabled. altered: the token was changed in the table;"
        " restore those rows from a backup.",
        lambda facts: sum(facts.unopened.values()),
    ),
)
