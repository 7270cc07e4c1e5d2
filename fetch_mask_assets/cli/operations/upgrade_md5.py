"""`fetch-mask upgrade-md5`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.progress import progress_text
from fetch_mask_assets.errors import FetchMaskError, NotReadyError
from fetch_mask_assets.keys.keyset import FieldMasker
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.masking.fields import MASKED_FIELDS, masked_field
from fetch_mask_assets.operations.md5_upgrade.digests import searches
from fetch_mask_assets.operations.md5_upgrade.postgres import (
    Attempt,
    DigestTable,
    Replaced,
    count_findable,
    drop_links,
    find_tokens,
    forget,
    only_upgrade,
    record,
    replace_all,
    untried,
)
from fetch_mask_assets.operations.md5_upgrade.search import usable_cores
from fetch_mask_assets.pipeline.warehouse.readiness import findings, require_ready

_NAMES = tuple(each.name for each in MASKED_FIELDS)


class UsageConflictError(FetchMaskError):
    """Options that do not go together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What became of a field's digests; `tried` counts values, `seconds` the time that took."""

    field: str
    digests: int
    recovered: int
    rows_changed: int
    digests_left: int
    rows_left: int
    tried: int
    seconds: float

    def description(self, *, is_dry: bool) -> str:
        would = "would be recovered" if is_dry else "recovered"
        rows = "" if is_dry else f" {self.rows_changed:,} rows changed."
        return (
            f"{self.field}: {self.digests:,} distinct MD5 digests, {self.recovered:,} {would},"
            f" {self.digests_left:,} left in {self.rows_left:,} rows.{rows}"
            f" Trying {self.tried:,} values took {self.seconds:.1f} s."
        )


@click.command()
@click.option(
    "--field",
    "names",
    multiple=True,
    type=click.Choice(_NAMES),
    help="Only this field; repeatable.",
)
@click.option(
    "--networks",
    multiple=True,
    metavar="CIDR|FILE",
    help="Of the IPv4 addresses only those of this network, or of the networks in a file, one a"
    " line; /24 or wider. Repeatable.",
)
@click.option(
    "--pattern",
    "patterns",
    multiple=True,
    help=r"The shape of device ids: N is a digit, x or X a hex digit in lower or upper case, any"
    r" other character itself, also an N, x or X behind a \. Repeatable.",
)
@click.option(
    "--values",
    type=click.Path(path_type=Path),
    help="A file of known values, one a line, tried for each field. It holds raw values, so its"
    " mode must be 0600 or stricter; remove it afterwards.",
)
@click.option("--no-links", is_flag=True, help="Keep no link from a digest to its token.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say how many digests would be recovered, and in what time.",
)
@click.option(
    "--drop-links",
    "is_dropping",
    is_flag=True,
    help="Only remove the links that upgrades have kept, of both fields.",
)
@click.option(
    "--cores",
    type=click.IntRange(min=1),
    help="Processes that search; by default one for each core.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def upgrade_md5(  # noqa: PLR0913 (one for each option)
    *,
    names: tuple[str, ...],
    networks: tuple[str, ...],
    patterns: tuple[str, ...],
    values: Path | None,
    no_links: bool,
    dry_run: bool,
    is_dropping: bool,
    cores: int | None,
    as_json: bool,
) -> None:
    r"""Turn a table of MD5 digests into one of tokens, in place.

    For user_logins whose masked columns hold the MD5 of their values as 32 hex digits. MD5 is no
    masking: this command tries every value, computes its MD5 on all cores, and where the table
    holds that digest, puts the value's token in its place, in every row. By default it tries every
    IPv4 address, and every other value of the shape NNN-NN-NNNN. With --networks, --pattern or
    --values it tries only what they name. IPv6 addresses and ids of no regular shape need
    --values.

    It can be stopped at any point and repeated, and goes on where it stopped. Digests that are not
    found stay and are counted. No value is printed, logged or stored; the start, the end and the
    counts are in the audit. Runs on LOGIN_RECOVERY_DATABASE_URL, as a member of
    login_ingest_recovery.

    Each digest is linked to its token in login_ingest.token_link, so that extracts which hold MD5
    can still be joined. A link keeps the MD5, from which anyone who reads it gets the value back:
    drop the links (--drop-links) when the extracts are gone. --no-links is safer, and cannot be
    made up for later.

    \b
    Examples:
      fetch-mask upgrade-md5 --dry-run
      fetch-mask upgrade-md5 --networks 10.0.0.0/8 --pattern NNN-NNN
      fetch-mask upgrade-md5 --field ip --values known-addresses.txt
      fetch-mask upgrade-md5 --drop-links
    """
    if is_dropping:
        _drop_links(as_json=as_json, others=(names, networks, patterns, values, no_links, dry_run))
        return
    attempts = _attempts(names or _NAMES, networks, patterns, values, cores or usable_cores())
    reports = _dry_run(attempts) if dry_run else _upgrade(attempts, with_links=not no_links)
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, "fields": [asdict(each) for each in reports]}))
        return
    for report in reports:
        click.echo(report.description(is_dry=dry_run))


def _attempts(
    names: Sequence[str],
    networks: Sequence[str],
    patterns: Sequence[str],
    values: Path | None,
    cores: int,
) -> dict[str, Attempt]:
    only_named = bool(networks or patterns or values)
    cidrs = [cidr for each in networks for cidr in _cidrs(each)]
    return {
        name: Attempt(
            searches(masked_field(name), networks=cidrs, patterns=patterns, only_named=only_named),
            values,
            cores,
        )
        for name in names
    }


def _cidrs(text: str) -> list[str]:
    path = Path(text)
    if not path.is_file():
        return [text]
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _dry_run(attempts: dict[str, Attempt]) -> list[_Report]:
    database = connections.recovery_database()
    unwell = [each.description for each in findings(database, connections.keysets()) if not each.ok]
    if unwell:
        raise NotReadyError(" ".join(unwell))
    return [
        _try_field(DigestTable(database.url, each), attempts[each.name])
        for each in MASKED_FIELDS
        if each.name in attempts
    ]


def _try_field(table: DigestTable, attempt: Attempt) -> _Report:
    before = table.count()
    with _trying(table.field.name, attempt) as (tell, clock):
        recovered = count_findable(table.digests(), attempt, tell)
    return _Report(
        field=table.field.name,
        digests=before.digests,
        recovered=recovered,
        rows_changed=0,
        digests_left=before.digests - recovered,
        rows_left=before.rows,
        tried=clock.tried,
        seconds=clock.seconds,
    )


def _upgrade(attempts: dict[str, Attempt], *, with_links: bool) -> list[_Report]:
    database = connections.recovery_database()
    keyring = read_keyring(connections.keysets())
    require_ready(database, keyring)
    maskers = [masker for masker in keyring.maskers if masker.field.name in attempts]
    sizes = {name: _size(attempt) for name, attempt in attempts.items()}
    with only_upgrade(database.url):
        _record(database.url, "begin", {"values_to_try": sizes, "links": with_links})
        reports = [
            _upgrade_field(database.url, masker, attempts[masker.field.name], with_links=with_links)
            for masker in maskers
        ]
        _record(database.url, "end", {"fields": [asdict(report) for report in reports]})
        for masker in maskers:
            forget(DigestTable(database.url, masker.field), attempts[masker.field.name])
    return reports


def _upgrade_field(url: str, masker: FieldMasker, attempt: Attempt, *, with_links: bool) -> _Report:
    table = DigestTable(url, masker.field)
    before = table.count()
    left = untried(table, attempt)
    with _trying(masker.field.name, left) as (tell, clock):
        find_tokens(table, masker, left, tell)
    with progress_text() as say:
        replaced = replace_all(table, with_links=with_links, tell=_teller(say, masker.field.name))
    after = table.count()
    return _Report(
        field=masker.field.name,
        digests=before.digests,
        recovered=replaced.digests,
        rows_changed=replaced.rows,
        digests_left=after.digests,
        rows_left=after.rows,
        tried=clock.tried,
        seconds=clock.seconds,
    )


def _teller(say: Callable[[str], None], name: str) -> Callable[[Replaced], None]:
    return lambda done: say(f"{name}: {done.digests:,} digests replaced in {done.rows:,} rows")


def _drop_links(*, as_json: bool, others: Sequence[object]) -> None:
    if any(others):
        raise UsageConflictError("--drop-links upgrades nothing: give it without other options.")
    dropped = drop_links(connections.recovery_database().url)
    click.echo(json.dumps({"links_dropped": dropped}) if as_json else f"Dropped {dropped:,} links.")


def _record(url: str, what: str, detail: object) -> None:
    record(url, f"upgrade-md5 {what}", json.dumps(detail))


def _size(attempt: Attempt) -> int:
    return sum(search.size for search in attempt.searches)


class _Clock:
    """How many values were tried, and in how many seconds."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.tried = 0
        self.seconds = 0.0

    def count(self, more: int) -> None:
        self.tried += more
        self.seconds = time.monotonic() - self._begin


class _RateColumn(ProgressColumn):
    """Million values a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed / 1e6:.1f} M/s")


@contextmanager
def _trying(name: str, attempt: Attempt) -> Iterator[tuple[Callable[[int], None], _Clock]]:
    """A call that counts values tried, shown with the time left at the rate so far."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    clock = _Clock()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"Trying values of {name}", total=_size(attempt) or None)

        def tell(more: int) -> None:
            clock.count(more)
            progress.advance(task, more)

        yield tell, clock
