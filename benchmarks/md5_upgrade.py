"""A table of random MD5 digests, upgraded to its end, and every token held against its original.

Makes a database of its own beside LOGIN_DATABASE_URL's, and drops it. IPs are drawn from all IPv4
addresses and device ids from all of NNN-NN-NNNN, each once. Run it with `make benchmark-md5`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
import psycopg

from benchmarks.databases import scratch_database
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, new_keyset, open_keyring
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.masking.fields import DEVICE_ID, IP
from fetch_mask_assets.operations.md5_upgrade.md5 import md5
from fetch_mask_assets.operations.md5_upgrade.postgres import DigestTable
from fetch_mask_assets.operations.md5_upgrade.spaces import (
    DEVICE_ID_PATTERN,
    IPV4,
    Space,
    pattern_space,
    plan_searches,
)
from fetch_mask_assets.operations.md5_upgrade.token_search import SearchPlan, find_tokens
from fetch_mask_assets.operations.md5_upgrade.upgrade import replace_all
from fetch_mask_assets.operations.md5_upgrade.workers import usable_cores

_SPACES = {IP.name: IPV4, DEVICE_ID.name: pattern_space(DEVICE_ID_PATTERN)}
_FILL = "COPY user_logins (user_id, masked_ip, masked_device_id) FROM STDIN"


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Rows, and digests of a field.")
@click.option("--cores", default=usable_cores, type=int, help="Processes that search.")
@click.option("--seed", default=0, show_default=True, help="Of the random values.")
@click.option("--no-links", is_flag=True, help="Keep no link from a digest to its token.")
def main(rows: int, cores: int, seed: int, *, no_links: bool) -> None:
    """Fill a table, upgrade it, verify each token, and print what each stage took."""
    drawn = random.Random(seed)  # noqa: S311 (samples)
    values = {name: _values(space, rows, drawn) for name, space in _SPACES.items()}
    keyring = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    click.echo(f"{rows:,} rows, on {cores} cores, {'without' if no_links else 'with'} links.")
    with scratch_database(os.environ["LOGIN_DATABASE_URL"]) as url:
        with _timed("fill", rows):
            _fill(url, values)
        for masker in (keyring.masker("ip"), keyring.masker("device_id")):
            _upgrade(url, masker, cores, with_links=not no_links)
        for masker in (keyring.masker("ip"), keyring.masker("device_id")):
            with _timed(f"{masker.field.name}: verify", rows):
                _verify(url, masker, values[masker.field.name])


def _values(space: Space, count: int, drawn: random.Random) -> list[str]:
    return [space.text(number) for number in drawn.sample(range(space.size), count)]


def _fill(url: str, values: dict[str, list[str]]) -> None:
    rows = zip(values[IP.name], values[DEVICE_ID.name], strict=True)
    with (
        psycopg.connect(url) as connection,
        connection.cursor() as cursor,
        cursor.copy(_FILL) as copy,
    ):
        for number, (ip, device_id) in enumerate(rows):
            copy.write_row((str(number), md5(ip).hex(), md5(device_id).hex()))


def _upgrade(url: str, masker: FieldMasker, cores: int, *, with_links: bool) -> None:
    """Upgrade one field as `fetch-mask upgrade-md5` does."""
    table = DigestTable(url, masker.field)
    searches = plan_searches(masker.field, networks=(), patterns=(), only_given=False)
    plan = SearchPlan(searches, None, cores)
    tried = [0]

    def count(values: int) -> None:
        tried[0] += values

    with _timed(f"{masker.field.name}: try all {plan.size:,} values", plan.size):
        found = find_tokens(table, masker, plan, count)
    before = table.count()
    with _timed(f"{masker.field.name}: replace", before.rows):
        replaced = replace_all(table, with_links=with_links, on_progress=lambda _done: None)
    after = table.count()
    click.echo(
        f"{masker.field.name}: {before.digests:,} digests, {found:,} found after {tried[0]:,}"
        f" values, {replaced.rows:,} rows changed, {after.digests:,} digests left."
    )


def _verify(url: str, masker: FieldMasker, values: Sequence[str]) -> None:
    statement = f"SELECT user_id::integer, {masker.field.column} FROM user_logins"  # noqa: S608 (ours)
    seen = 0
    with psycopg.connect(url) as connection, connection.cursor(name="all") as cursor:
        cursor.itersize = 10_000
        for number, token in cursor.execute(statement.encode()):
            if masker.unmask(token) != values[number]:
                raise SystemExit(f"row {number}: the token is not that of its {masker.field.name}.")
            seen += 1
    if seen != len(values):
        raise SystemExit(f"{seen:,} rows are there, and {len(values):,} were filled in.")
    click.echo(f"{masker.field.name}: all {seen:,} tokens give their originals back.")


@contextmanager
def _timed(stage: str, count: int) -> Iterator[None]:
    started = time.perf_counter()
    yield
    took = time.perf_counter() - started
    click.echo(f"  {stage}: {took:,.1f} s, {count / took:,.0f}/s")


if __name__ == "__main__":
    main()
