"""`fetch-mask audit`: show the audit, and verify its hash chain."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

from fetch_mask_assets.audit.chain import AuditRow, Chain, verify_chain
from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.wording import counted, printable, utc_time


@click.command()
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(0), help="Maximum rows to show."
)
@click.option("--verify", is_flag=True, help="Show the result of the verification only.")
@click.option(
    "--expect-hash", metavar="HEX", help="A hash noted earlier, which must be in the chain."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def audit(*, limit: int, verify: bool, expect_hash: str | None, as_json: bool) -> None:
    """Show the newest rows of the audit, and verify its whole hash chain.

    Computes the hash of each row without the database, and reports the first row that does not
    fit: it was edited or inserted, or a row before it was deleted. Exit code 1 if the chain is not
    intact.

    The chain alone does not show that rows were removed from its end, or that all hashes were
    computed again. Keep the last hash in another place, and give it later with --expect-hash.

    The database is that of `fetch-mask report`: LOGIN_AUDITOR_DATABASE_URL, or if that is not set
    LOGIN_RECOVERY_DATABASE_URL.
    """
    expected = _hash(expect_hash)
    trail = Audit(connections.auditor_database().url)
    rows = [] if verify else trail.newest(limit)
    chain = verify_chain(trail.rows(), expected)
    if as_json:
        click.echo(json.dumps(_json(rows, chain, expect_hash)))
    else:
        _print_rows(rows)
        _print_chain(chain, expect_hash)
    sys.exit(0 if chain.is_whole else 1)


def _hash(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.BadParameter("must be hexadecimal.", param_hint="--expect-hash") from None


def _print_rows(rows: Sequence[AuditRow]) -> None:
    for row in rows:
        at = utc_time(row.at) if row.at else "(invalid time)"
        click.echo(printable(f"{row.audit_id}  {at}  {row.actor}  {row.action}  {row.detail}"))


def _print_chain(chain: Chain, expect_hash: str | None) -> None:
    if chain.broken:
        _print_failure(f"BROKEN at row {chain.broken.audit_id}: {chain.broken.reason}.")
    before = " before it" if chain.broken else ""
    click.echo(f"{counted(chain.rows, 'row', 'rows')} verified{before}.")
    if not chain.has_expected:
        _print_failure(
            f"MISSING: no row has the expected hash {expect_hash}. Rows were removed from the end,"
            " or the hashes were computed again."
        )
    click.echo(f"Last verified hash: {chain.last_hash.hex() or '(none)'}")
    click.echo(
        "The chain alone does not show rows removed from its end. Keep this hash, and verify with"
        " --expect-hash."
    )


def _print_failure(text: str) -> None:
    click.secho(text, fg="red", err=True)


def _json(rows: Sequence[AuditRow], chain: Chain, expect_hash: str | None) -> dict[str, object]:
    broken = chain.broken
    return {
        "intact": chain.is_whole,
        "verified_rows": chain.rows,
        "last_hash": chain.last_hash.hex(),
        "broken": {"audit_id": broken.audit_id, "reason": broken.reason} if broken else None,
        "expected_hash_found": chain.has_expected if expect_hash else None,
        "rows": [_row_json(row) for row in rows],
    }


def _row_json(row: AuditRow) -> dict[str, object]:
    return {
        "audit_id": row.audit_id,
        "at": row.at.isoformat() if row.at else None,
        "actor": row.actor,
        "action": row.action,
        "detail": row.detail,
        "hash": row.hash.hex(),
    }
