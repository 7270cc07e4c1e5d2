"""`fetch-mask upgrade-md5`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.operations.md5_progress import TerminalDisplay
from fetch_mask_assets.errors import FetchMaskError, NotReadyError
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.masking.fields import MASKED_FIELDS, masked_field
from fetch_mask_assets.operations.md5_upgrade.postgres import DigestTable, drop_links
from fetch_mask_assets.operations.md5_upgrade.spaces import plan_searches
from fetch_mask_assets.operations.md5_upgrade.token_search import SearchPlan
from fetch_mask_assets.operations.md5_upgrade.upgrade import FieldReport, dry_run, upgrade
from fetch_mask_assets.operations.md5_upgrade.workers import usable_cores
from fetch_mask_assets.pipeline.warehouse.readiness import findings, require_ready

_NAMES = tuple(each.name for each in MASKED_FIELDS)


class UsageConflictError(FetchMaskError):
    """The options exclude each other."""


_EXAMPLES = """Examples:

\b
  fetch-mask upgrade-md5 --dry-run
  fetch-mask upgrade-md5 --networks 10.0.0.0/8 --pattern NNN-NNN
  fetch-mask upgrade-md5 --field ip --values known-addresses.txt
  fetch-mask upgrade-md5 --drop-links

After --drop-links, extracts with MD5 digests can no longer be joined.
"""


@click.command(epilog=_EXAMPLES)
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
    help="Try only the IPv4 addresses of this network, or of the networks in a file, one a line;"
    " /24 or wider. Repeatable.",
)
@click.option(
    "--pattern",
    "patterns",
    multiple=True,
    help=r"Try only ids of this pattern: N is a digit, x or X a hex digit in lower or upper"
    r" case, any other character is literal; \ makes the next N, x or X literal. Repeatable.",
)
@click.option(
    "--values",
    "values_file",
    type=click.Path(path_type=Path),
    help="A file of known values, one a line, tried for each field. It contains raw values, so its"
    " mode must be 0600 or stricter; delete it afterwards.",
)
@click.option("--no-links", is_flag=True, help="Keep no link from a digest to its token.")
@click.option(
    "--dry-run",
    "is_dry",
    is_flag=True,
    help="Only report the digests that would be recovered, and the time that takes.",
)
@click.option(
    "--drop-links",
    "is_dropping",
    is_flag=True,
    help="Only delete the links from MD5 digests to tokens, of all fields.",
)
@click.option(
    "--cores", type=click.IntRange(min=1), help="Search processes; by default one for each core."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def upgrade_md5(  # noqa: PLR0913 (one for each option)
    *,
    names: tuple[str, ...],
    networks: tuple[str, ...],
    patterns: tuple[str, ...],
    values_file: Path | None,
    no_links: bool,
    is_dry: bool,
    is_dropping: bool,
    cores: int | None,
    as_json: bool,
) -> None:
    """Replace MD5 digests in user_logins by tokens, in place.

    For a user_logins whose masked columns contain the MD5 of their values as 32 hex digits. The
    command computes the MD5 of every possible value on all cores. For each digest of the table that
    it finds, it replaces the digest by the value's token in every row. By default it tries every
    IPv4 address, and for other fields every value of the pattern NNN-NN-NNNN. With --networks,
    --pattern or --values it tries only those values. IPv6 addresses and ids without a pattern need
    --values.

    You can stop the command at any point and run it again: it continues where it stopped. Digests
    that are not found stay and are counted. No value is printed, logged or stored. The audit
    records the start, the end and the counts. The database is LOGIN_RECOVERY_DATABASE_URL; the
    login must be a member of login_ingest_recovery.

    login_ingest.token_link links each digest to its token, so that extracts with MD5 digests can
    still be joined. A link keeps the MD5, which gives the value to anyone who reads it: delete the
    links (--drop-links) when the extracts are gone. --no-links is safer; the links cannot be made
    later.
    """
    if is_dropping:
        others = (names, networks, patterns, values_file, no_links, is_dry)
        _drop_links(as_json=as_json, others=others)
        return
    plans = _plans(names or _NAMES, networks, patterns, values_file, cores or usable_cores())
    reports = _dry_run(plans) if is_dry else _upgrade(plans, with_links=not no_links)
    if as_json:
        click.echo(json.dumps({"dry_run": is_dry, "fields": [asdict(each) for each in reports]}))
        return
    for report in reports:
        click.echo(_sentence(report, is_dry=is_dry))


def _plans(
    names: Sequence[str],
    networks: Sequence[str],
    patterns: Sequence[str],
    values_file: Path | None,
    cores: int,
) -> dict[str, SearchPlan]:
    only_given = bool(networks or patterns or values_file)
    cidrs = [cidr for each in networks for cidr in _cidrs(each)]
    searches = {
        name: plan_searches(
            masked_field(name), networks=cidrs, patterns=patterns, only_given=only_given
        )
        for name in names
    }
    return {name: SearchPlan(each, values_file, cores) for name, each in searches.items()}


def _cidrs(text: str) -> list[str]:
    path = Path(text)
    if not path.is_file():
        return [text]
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _dry_run(plans: dict[str, SearchPlan]) -> list[FieldReport]:
    database = connections.recovery_database()
    failed = [each.description for each in findings(database, connections.keysets()) if not each.ok]
    if failed:
        raise NotReadyError(" ".join(failed))
    return [
        dry_run(DigestTable(database.url, each), plans[each.name], TerminalDisplay())
        for each in MASKED_FIELDS
        if each.name in plans
    ]


def _upgrade(plans: dict[str, SearchPlan], *, with_links: bool) -> list[FieldReport]:
    database = connections.recovery_database()
    keyring = read_keyring(connections.keysets())
    require_ready(database, keyring)
    maskers = [masker for masker in keyring.maskers if masker.field.name in plans]
    return upgrade(database.url, maskers, plans, TerminalDisplay(), with_links=with_links)


def _drop_links(*, as_json: bool, others: Sequence[object]) -> None:
    if any(others):
        raise UsageConflictError("--drop-links excludes an upgrade: use it without other options.")
    dropped = drop_links(connections.recovery_database().url)
    click.echo(json.dumps({"links_dropped": dropped}) if as_json else f"Dropped {dropped:,} links.")


def _sentence(report: FieldReport, *, is_dry: bool) -> str:
    recovered = "would be recovered" if is_dry else "recovered"
    rows = "" if is_dry else f" {report.rows_changed:,} rows changed."
    return (
        f"{report.field}: {report.digests:,} distinct MD5 digests, {report.recovered:,}"
        f" {recovered}, {report.digests_left:,} left in {report.rows_left:,} rows.{rows}"
        f" {report.values_tried:,} values tried in {report.seconds:.1f} s."
    )
