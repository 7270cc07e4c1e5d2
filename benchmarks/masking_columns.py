"""The CPU of masking and opening a column, beside a call of Tink for each distinct value.

Run it alone: `python benchmarks/masking_columns.py`. The two alternate, so that their ratio means
something on a machine that does other work too.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import median

import click
import polars as pl

from fetch_mask_assets.keys.keyset import KEYSET_NAMES, new_keyset, open_keyring
from fetch_mask_assets.keys.masker import FieldMasker

_Work = Callable[[FieldMasker, pl.Series], object]


@click.command()
@click.option("--rows", default=10_000, show_default=True, help="Values of a column.")
@click.option("--repeats", default=15, show_default=True, help="Measurements of each.")
def main(rows: int, repeats: int) -> None:
    """Print microseconds of CPU a row, by Tink and by columns, and their ratio."""
    keyring = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    columns = {"ip": _addresses(rows), "device_id": _device_ids(rows)}
    for name, values in columns.items():
        masker = keyring.masker(name)
        tokens = masker.mask_column(values)
        click.echo(f"{name}: {rows:,} values, {values.n_unique():,} distinct")
        _compare("mask", (_mask_each, FieldMasker.mask_column), masker, values, repeats)
        _compare("open", (_open_each, _open_column), masker, tokens, repeats)


def _compare(
    name: str, ways: tuple[_Work, _Work], masker: FieldMasker, column: pl.Series, repeats: int
) -> None:
    measured = [[_seconds(way, masker, column) for way in ways] for _ in range(repeats)]
    tinks, columns = (median(each) / len(column) * 1e6 for each in zip(*measured, strict=True))
    click.echo(
        f"  {name}: {tinks:.2f} us a row by Tink, {columns:.2f} by columns, {columns / tinks:.2f}"
    )


def _seconds(way: _Work, masker: FieldMasker, column: pl.Series) -> float:
    began = time.process_time()
    way(masker, column)
    return time.process_time() - began


def _mask_each(masker: FieldMasker, values: pl.Series) -> list[str]:
    tokens = {value: masker.mask(value) for value in set(values)}
    return [tokens[value] for value in values]


def _open_each(masker: FieldMasker, tokens: pl.Series) -> dict[str, bytes]:
    return {token: masker.decrypt(token) for token in set(tokens)}


def _open_column(masker: FieldMasker, tokens: pl.Series) -> pl.DataFrame:
    return masker.open_column(tokens.unique())


def _addresses(rows: int) -> pl.Series:
    """Four of five distinct."""
    texts = [f"198.51.{number // 256 % 256}.{number % 256}" for number in range(rows * 4 // 5)]
    return _shuffled(texts, rows)


def _device_ids(rows: int) -> pl.Series:
    """Half of them distinct, of several lengths."""
    texts = [f"{number:011}" + "x" * (number % 26) for number in range(rows // 2)]
    return _shuffled(texts, rows)


def _shuffled(texts: list[str], rows: int) -> pl.Series:
    chance = random.Random(1)  # noqa: S311 (an order, not a secret)
    values = [*texts, *chance.choices(texts, k=rows - len(texts))]
    chance.shuffle(values)
    return pl.Series(values, dtype=pl.String)


if __name__ == "__main__":
    main()
