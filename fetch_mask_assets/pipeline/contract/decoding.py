"""The login events and the rejections of a batch of message bodies."""

from __future__ import annotations

import polars as pl

from fetch_mask_assets.masking.fields import FIELD_NAMES
from fetch_mask_assets.pipeline.contract.login_event import LoginEvent, decode_login_event
from fetch_mask_assets.pipeline.contract.ordinary_bodies import (
    EVENT_SCHEMA,
    ROW,
    ordinary_events,
)

DECODED_SCHEMA = pl.Schema({**EVENT_SCHEMA, "reason": pl.String(), "field": pl.String()})
"""One row for each body: the values of its event, or the reason for rejecting it and the field."""

BODIES_IN_PART = 10_000


def decode_bodies(bodies: pl.Series) -> pl.DataFrame:
    """The result of `decode_login_event` for each body.

    Returns:
        A frame of `DECODED_SCHEMA`, row by row the bodies'.
    """
    numbered = bodies.alias("body").to_frame().with_row_index(ROW)
    # In parts, because the groups of a pattern take more memory than the events.
    parts = [_decode(part) for part in numbered.iter_slices(BODIES_IN_PART)]
    return pl.concat(parts or [DECODED_SCHEMA.to_frame()], rechunk=True)


def _decode(numbered: pl.DataFrame) -> pl.DataFrame:
    ordinary = ordinary_events(numbered)
    others = numbered.join(ordinary, on=ROW, how="anti")
    decoded = [(row, *_cells(body)) for row, body in others.iter_rows()]
    rest = pl.DataFrame(decoded, schema=DECODED_SCHEMA, orient="row")
    return pl.concat([ordinary, rest], how="diagonal").sort(ROW)


def _cells(body: str) -> tuple[str | int | None, ...]:
    decoded = decode_login_event(body)
    if isinstance(decoded, LoginEvent):
        return (*decoded.values.values(), decoded.extra_fields, None, None)
    return (*(None for _ in FIELD_NAMES), None, decoded.reason.value, decoded.field)
