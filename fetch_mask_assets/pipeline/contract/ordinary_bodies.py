"""Ordinary message bodies decoded over columns.

An ordinary body is a flat JSON object without escapes, whose keys are in an order that is frequent
in the batch. One pattern for each of these orders extracts the values. The event of such a body is
the one that `decode_login_event` returns; a body that breaks the contract is left to that function.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import polars as pl

from fetch_mask_assets.masking.canonical_columns import column_check
from fetch_mask_assets.masking.fields import (
    CLEAR_FIELDS,
    FIELD_NAMES,
    FIELDS,
    MASKED_FIELDS,
    ClearField,
    MaskedField,
)
from fetch_mask_assets.pipeline.contract.login_event import repeating_field
from fetch_mask_assets.pipeline.contract.message_body import parse_object
from fetch_mask_assets.pipeline.contract.rejection import RejectedError
from fetch_mask_assets.pipeline.contract.repeated_values import may_repeat

ROW = "__row__"
"""The column of a body's number in the batch."""

EVENT_SCHEMA = pl.Schema(
    {ROW: pl.UInt32(), **dict.fromkeys(FIELD_NAMES, pl.String()), "extra_fields": pl.Int32()}
)
"""One row for each login event: its values as they came."""

_READ_SCHEMA = pl.Schema({**EVENT_SCHEMA, "may_repeat": pl.Boolean()})

MAX_KEY_ORDERS = 4
SAMPLE = 64
"""The number of bodies of a batch in which the frequent orders of keys are sought."""

MAX_ORDINARY_BYTES = 4 * 1024
MAX_KEYS = 20
"""Longer bodies, and bodies with more keys, are decoded faster one by one."""

# A key becomes part of a pattern: a plain name cannot change its meaning.
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_REQUIRED = frozenset(field.name for field in FIELDS if field.is_required)

# In the syntax of Rust's regex, which Polars uses. Texts with control characters are left out: C0
# is not JSON, and DEL and C1 break the contract.
_SPACE = r"[ \t\n\r]*"
_TEXT = r'[^"\\\x00-\x1f\x7f-\x{9f}]*'
_NUMBER = r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,15})?"
_SCALAR = f'(?:"{_TEXT}"|{_NUMBER}|true|false|null)'


def ordinary_events(bodies: pl.DataFrame) -> pl.DataFrame:
    """The events of the ordinary bodies that keep the contract, without the other rows.

    Args:
        bodies: the columns `ROW` and `body`.

    Returns:
        A frame of `EVENT_SCHEMA`, in any order.
    """
    rest = bodies.filter(pl.col("body").str.len_bytes() <= MAX_ORDINARY_BYTES)
    found = [_READ_SCHEMA.to_frame()]
    for keys in _frequent_key_orders(rest["body"]):
        found.append(_read(rest, keys))
        rest = rest.join(found[-1], on=ROW, how="anti")
    return _keeping_contract(pl.concat(found))


def _frequent_key_orders(bodies: pl.Series) -> list[tuple[str, ...]]:
    sample = bodies.gather_every(len(bodies) // SAMPLE + 1)
    orders = Counter(keys for body in sample if (keys := _keys(body)))
    return [keys for keys, _ in orders.most_common(MAX_KEY_ORDERS)]


def _keys(body: str) -> tuple[str, ...]:
    """The keys of a body in their order; none if it cannot be ordinary."""
    try:
        keys = tuple(parse_object(body))
    except RejectedError:
        return ()
    is_usable = len(keys) <= MAX_KEYS and all(map(_PLAIN_NAME.fullmatch, keys))
    return keys if is_usable and _REQUIRED.issubset(keys) else ()


def _read(bodies: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The events of the bodies whose keys are in this order, within the bounds of each field."""
    missing = {name: pl.lit(None, pl.String) for name in set(FIELD_NAMES).difference(keys)}
    extra_fields = len(set(keys).difference(FIELD_NAMES))
    return (
        bodies.lazy()
        .select(ROW, pl.col("body").str.extract_groups(_pattern(keys)))
        .unnest("body")
        .with_columns(**missing, extra_fields=pl.lit(extra_fields, pl.Int32))
        .filter(_IS_WITHIN_BOUNDS)
        .select(*EVENT_SCHEMA.names(), may_repeat=_MAY_REPEAT)
        .collect()
    )


def _pattern(keys: Sequence[str]) -> str:
    members = (f'"{key}"{_SPACE}:{_SPACE}{_VALUES.get(key, _SCALAR)}' for key in keys)
    separator = f"{_SPACE},{_SPACE}"
    return rf"\A{_SPACE}\{{{_SPACE}{separator.join(members)}{_SPACE}\}}{_SPACE}\z"


def _value(field: ClearField | MaskedField) -> str:
    text = f'"(?P<{field.name}>{_TEXT})"'
    return text if field.is_required else f"(?:{text}|null)"


_VALUES = {field.name: _value(field) for field in FIELDS}


def _is_within_bounds(field: ClearField | MaskedField) -> Iterator[pl.Expr]:
    text = pl.col(field.name)
    yield text.is_not_null() if field.is_required else pl.lit(value=True)
    yield text.is_null() | (text.str.len_chars() <= field.max_length)
    if field.is_required or isinstance(field, MaskedField):
        yield text.is_null() | (text.str.strip_chars() != "")


_IS_WITHIN_BOUNDS = pl.all_horizontal(each for field in FIELDS for each in _is_within_bounds(field))
_MAY_REPEAT = may_repeat(
    [field.name for field in CLEAR_FIELDS], [field.name for field in MASKED_FIELDS]
)


def _keeping_contract(events: pl.DataFrame) -> pl.DataFrame:
    for field in MASKED_FIELDS:
        events = events.filter(column_check(field.form, events[field.name]))
    doubtful = events.filter("may_repeat").iter_rows(named=True)
    repeated = [event[ROW] for event in doubtful if repeating_field(event)]
    return events.filter(~pl.col(ROW).is_in(repeated)).drop("may_repeat")
