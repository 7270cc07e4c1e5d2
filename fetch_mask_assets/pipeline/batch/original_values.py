"""The original values of message bodies, read apart from the decoder.

The rules compare them with the masked frame. Read by the decoder, they would have its mistakes too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import polars as pl

from fetch_mask_assets.masking.fields import MASKED_FIELDS, MaskedField
from fetch_mask_assets.pipeline.batch.frames import in_rows


def original_column(field: MaskedField) -> str:
    """The name of the column of a masked field's original values."""
    return f"original_{field.name}"


def original_values(bodies: pl.Series) -> list[pl.Series]:
    """The text that each body has for each masked field, by column; null if it has none."""
    is_plain = _is_plain(bodies)
    events = [_strings(body) for body in bodies.filter(~is_plain)]
    return [
        _plain_texts(bodies, field)
        .zip_with(is_plain, in_rows(~is_plain, _texts(events, field)))
        .alias(original_column(field))
        for field in MASKED_FIELDS
    ]


def _is_plain(bodies: pl.Series) -> pl.Series:
    """Return whether a pattern finds the masked fields of each body, so that it need not be parsed.

    In a body without escapes, a name is written as it is. If an
    object has no inner objects and the name occurs once, the name is either the key, or a value in
    an object that lacks the key.
    """
    is_flat = bodies.str.count_matches("{", literal=True) <= 1
    is_plain = is_flat & ~bodies.str.contains("\\", literal=True)
    for field in MASKED_FIELDS:
        is_plain &= bodies.str.count_matches(f'"{field.name}"', literal=True) <= 1
    return is_plain


def _plain_texts(bodies: pl.Series, field: MaskedField) -> pl.Series:
    return bodies.str.extract(rf'"{field.name}"[ \t\n\r]*:[ \t\n\r]*"([^"]*)"')


def _texts(events: Iterable[Mapping[str, str]], field: MaskedField) -> pl.Series:
    return pl.Series([event.get(field.name) for event in events], dtype=pl.String)


def _strings(body: str) -> dict[str, str]:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    members = event.items() if isinstance(event, dict) else ()
    return {name: value for name, value in members if isinstance(value, str)}
