"""The CPU of decoding the sample bodies as a batch, beside decoding each alone.

Run it alone: `python benchmarks/decoding_columns.py`. The two alternate, so that their ratio means
something on a machine that does other work too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import click
import polars as pl

from fetch_mask_assets.local_stack.samples import samples
from fetch_mask_assets.pipeline.contract.decoding import decode_bodies
from fetch_mask_assets.pipeline.contract.login_event import decode_login_event


@click.command()
@click.option("--rows", default=10_000, show_default=True, help="Bodies of a batch.")
@click.option("--repeats", default=15, show_default=True, help="Measurements of each.")
def main(rows: int, repeats: int) -> None:
    """Print microseconds of CPU a body, alone and in a batch, and their ratio."""
    bodies = pl.Series(samples(rows, seed=1))
    ways = (_decode_each, decode_bodies)
    measured = [[_seconds(way, bodies) for way in ways] for _ in range(repeats)]
    alone, batch = (median(each) / rows * 1e6 for each in zip(*measured, strict=True))
    click.echo(f"{alone:.2f} us a body alone, {batch:.2f} in a batch, {batch / alone:.2f}")


def _decode_each(bodies: pl.Series) -> object:
    return [decode_login_event(body) for body in bodies]


def _seconds(way: Callable[[pl.Series], object], bodies: pl.Series) -> float:
    began = time.process_time()
    way(bodies)
    return time.process_time() - began


if __name__ == "__main__":
    main()
