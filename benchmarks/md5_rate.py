"""The rate at which this machine computes MD5 of whole spaces, beside the rate of masking.

Run it alone: `python -m benchmarks.md5_rate`. All rates are of one run on one machine, so their
ratios mean something where the rates themselves do not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import click

from fetch_mask_assets.keys.keyset import KEYSET_NAMES, new_keyset, open_keyring
from fetch_mask_assets.operations.md5_upgrade.md5 import md5
from fetch_mask_assets.operations.md5_upgrade.search import DigestSet, digest_set
from fetch_mask_assets.operations.md5_upgrade.spaces import (
    DEVICE_ID_PATTERN,
    IPV4,
    Space,
    pattern_space,
)
from fetch_mask_assets.operations.md5_upgrade.spans import Span, split_spans
from fetch_mask_assets.operations.md5_upgrade.workers import search_spans, usable_cores

_WARM_UP = Span(0, 1_000)


@click.command()
@click.option("--seconds", default=10.0, show_default=True, help="How long each rate is measured.")
@click.option("--digests", default=1_000_000, show_default=True, help="Digests to find.")
@click.option("--cores", default=usable_cores, type=int, help="Processes that search.")
def main(seconds: float, digests: int, cores: int) -> None:
    """Measure the rates, and print the time for every IPv4 address and every NNN-NN-NNNN."""
    targets = digest_set(os.urandom(16 * digests))
    click.echo(f"{digests:,} digests to find, on {cores} cores.")
    spaces = (IPV4, pattern_space(DEVICE_ID_PATTERN))
    rates = [_search_rate(space, targets, cores, seconds) for space in spaces]
    for space, rate in zip(spaces, rates, strict=True):
        click.echo(
            f"MD5 of {space.name}: {rate / 1e6:.1f} M/s; all {space.size:,} values in"
            f" {space.size / rate:,.0f} s"
        )
    one = _call_rate(md5, seconds)
    keyring = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    masking = _call_rate(keyring.masker("ip").mask, seconds)
    click.echo(f"hashlib.md5, value by value on one core: {one / 1e6:.2f} M/s")
    click.echo(f"AES-SIV masking, value by value on one core: {masking / 1e6:.2f} M/s")
    click.echo(
        f"The search is {rates[0] / one:.1f} times hashlib, {rates[0] / masking:.1f} times masking."
    )
    click.echo(
        "Masking is slower, and that is not what protects: without the key there is nothing to try."
    )


def _search_rate(space: Space, targets: DigestSet, cores: int, seconds: float) -> float:
    spans = [_WARM_UP, *split_spans([Span(0, space.size)], space.size)]
    tried = 0
    began = 0.0
    found = search_spans(space, spans, targets, cores)
    for span, _ in found:
        if span is _WARM_UP:
            began = time.perf_counter()
            continue
        tried += len(span)
        if time.perf_counter() - began >= seconds:
            break
    rate = tried / (time.perf_counter() - began)
    found.close()
    return rate


def _call_rate(call: Callable[[str], object], seconds: float) -> float:
    texts = [IPV4.text((10 << 24) + number) for number in range(100_000)]
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for text in texts:
            call(text)
        done += len(texts)
    return done / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
