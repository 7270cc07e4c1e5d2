"""`fetch-mask unmask`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TextIO

import click

from fetch_mask_assets.audit.chain import AuditRow, Chain, verify_chain
from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.cli import connections
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets.operations.unmasking.requests import (
    Opened,
    UnmaskRefusedError,
    UnmaskRequest,
    named_tokens,
    open_tokens,
    said,
)

SOME_REFUSED = 3
"""The exit code of a reveal that refused some of its tokens."""

_PRIVATE = 0o600


# click's \b keeps the lines after it as they are.
_REQUEST_EXAMPLES = """\b
Examples:
  fetch-mask unmask request --file tokens.txt --reason "account takeover" --ticket SEC-12
  fetch-mask unmask request --reason "account takeover" --ticket SEC-12 \\
      --query "SELECT DISTINCT masked_ip FROM user_logins WHERE user_id = 'u1'"
"""


@click.group()
def unmask() -> None:
    """Get originals back, on the record.

    One person requests, another approves, the first reveals. Who is who is the database's login,
    from LOGIN_RECOVERY_DATABASE_URL; both must be members of login_ingest_recovery. Each step, and
    each refusal, is in the audit before anything else happens.
    """


@unmask.command(epilog=_REQUEST_EXAMPLES)
@click.option("--file", type=click.File("r"), help="Tokens, one a line; - is standard input.")
@click.option(
    "--query",
    metavar="SQL",
    help="Tokens are the first column of this SELECT, run as you, read-only. Processes' arguments"
    " can be seen by others: never put a raw value into it.",
)
@click.option("--reason", required=True, help="Why, in a line. Kept for ever: no raw values.")
@click.option("--ticket", required=True, help="Where that was decided.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def request(
    *, file: TextIO | None, query: str | None, reason: str, ticket: str, as_json: bool
) -> None:
    """Ask for the originals of some tokens.

    Takes tokens from --file or from --query, each once, at most LOGIN_UNMASK_LIMIT of them (100)
    and no more than the database's unmask_policy allows. Prints the number of the request.
    """
    limit = connections.tuning().unmask_limit
    desk = _desk()
    why, where = said("reason", reason), said("ticket", ticket)
    tokens = named_tokens(_lines(desk, file, query, limit), limit)
    number = desk.request(tokens, why, where, limit)
    if as_json:
        click.echo(json.dumps({"request": number, "tokens": len(tokens)}))
    else:
        click.echo(
            f"Request {number} for {counted(len(tokens), 'token')} is recorded. Somebody else"
            f" approves it: fetch-mask unmask approve {number}"
        )


@unmask.command()
@click.argument("request_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@click.option("--minutes", default=60, show_default=True, type=click.IntRange(1, 2**31 - 1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def approve(request_id: int, *, minutes: int, as_json: bool) -> None:
    """Approve request ID of somebody else, for a limited time.

    Look at it first, with `fetch-mask unmask list`. The database's unmask_policy holds the longest
    time (480 minutes).
    """
    until = _desk().approve(request_id, minutes)
    if as_json:
        click.echo(json.dumps({"request": request_id, "approved_until": until.isoformat()}))
    else:
        click.echo(f"Request {request_id} is approved until {_moment(until)}.")


@unmask.command()
@click.argument("request_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the originals to this new file, which only you can read (0600).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, originals exactly.")
def reveal(request_id: int, *, output: Path | None, as_json: bool) -> None:
    """Get the originals of request ID, once it is approved and while it is.

    Prints `token<TAB>original` to your terminal or to --output, and nowhere else: without --output,
    standard output must be a terminal. Control characters are shown escaped. Needs the keysets
    (MASKING_KEYSETS).

    Exit code 3 if some tokens were refused: altered, another field's, or under a key that the
    keysets have not. They are named on standard error, and the others are revealed. Exit code 1 if
    nothing was revealed.
    """
    desk = _desk()
    maskers = read_keyring(connections.keysets()).maskers
    with _private_output(output) as write:
        tokens = desk.reveal(request_id)
        opened = open_tokens(tokens, maskers)
        write(_revealed_json(request_id, opened) if as_json else _revealed_lines(opened))
    refused = [each for each in opened if each.refused]
    for each in refused:
        click.echo(f"{each.token}: {each.refused}", err=True)
    if output:
        count = counted(len(opened) - len(refused), "original")
        click.echo(f"{count} of request {request_id} written to {output}.")
    sys.exit(SOME_REFUSED if refused else 0)


@unmask.command()
@click.argument("request_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def withdraw(request_id: int, *, as_json: bool) -> None:
    """Withdraw request ID, approved or not: it gives no originals any more.

    Who asked, who approved, or any other member of login_ingest_recovery may do it. It is for good:
    who still needs the originals makes another request. Repeating it changes nothing. What was
    revealed before stays known.
    """
    by_person, since = _desk().withdraw(request_id)
    if as_json:
        answer = {"request": request_id, "withdrawn_by": by_person, "at": since.isoformat()}
        click.echo(json.dumps(answer))
    else:
        click.echo(
            printable(f"Request {request_id} is withdrawn, by {by_person} at {_moment(since)}.")
        )


@unmask.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array, with the tokens.")
def list_requests(*, as_json: bool) -> None:
    """Show all requests, newest first: who, why, how many tokens, and where they stand."""
    requests, now = _desk().requests()
    if as_json:
        lines = [asdict(each) | {"state": each.state(now)} for each in requests]
        click.echo(json.dumps(lines, default=datetime.isoformat))
        return
    for each in requests:
        click.echo(_request_line(each, now))
    if not requests:
        click.echo("There is no request.")


@unmask.command()
@click.option("--last", default=50, show_default=True, type=click.IntRange(0), help="Rows to show.")
@click.option("--verify", is_flag=True, help="Show only whether the audit is whole.")
@click.option("--expect-hash", metavar="HEX", help="A hash noted earlier, which must be in it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def audit(*, last: int, verify: bool, expect_hash: str | None, as_json: bool) -> None:
    """Show the audit, and verify all of it from its first row.

    Recomputes each row's hash, independently of the database, and points at the first row that does
    not fit: edited, inserted, or after one that was deleted. Whether rows were cut off at the END,
    or the whole chain was computed anew, cannot be seen from the chain: keep the last hash
    elsewhere, and give it with --expect-hash later. Exit code 1 if the audit is not whole.
    """
    expected = _hash(expect_hash)
    trail = Audit(connections.recovery_database().url)
    rows = [] if verify else trail.newest(last)
    chain = verify_chain(trail.rows(), expected)
    if as_json:
        click.echo(json.dumps(_audit_json(rows, chain, expect_hash)))
    else:
        _print_audit(rows, chain, expect_hash)
    sys.exit(0 if chain.is_whole else 1)


def printable(text: str) -> str:
    """Text with whatever could steer a terminal or break a line as an escape sequence."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def _desk() -> Unmasking:
    return Unmasking(connections.recovery_database().url)


def _lines(desk: Unmasking, file: TextIO | None, query: str | None, limit: int) -> Iterable[str]:
    if (file is None) == (query is None):
        raise click.UsageError("give either --file or --query.")
    if query is not None:
        return desk.first_column(query, limit)
    return _text_lines(file) if file else ()


def _text_lines(file: TextIO) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError:
        raise UnmaskRefusedError("the tokens are not UTF-8: nothing was asked.") from None


@contextmanager
def _private_output(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A place for originals; a file that was not written does not stay."""
    if path is None:
        if not sys.stdout.isatty():
            raise UnmaskRefusedError(
                "standard output is no terminal, and originals go nowhere else: use --output FILE."
                " Nothing was asked."
            )
        yield click.echo
        return
    descriptor = _create(path)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield lambda text: print(text, file=file)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UnmaskRefusedError(
            f"{path} cannot be written ({type(error).__name__}): it is removed. The reveal is"
            " recorded; it can be repeated while the approval lasts."
        ) from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _create(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    except OSError as error:
        raise UnmaskRefusedError(
            f"{path} cannot be made ({type(error).__name__}): it must be a new file. Nothing was"
            " asked."
        ) from None


def _revealed_lines(opened: Sequence[Opened]) -> str:
    return "\n".join(
        f"{each.token}\t{printable(each.original)}" for each in opened if each.original is not None
    )


def _revealed_json(request_id: int, opened: Sequence[Opened]) -> str:
    return json.dumps(
        {
            "request": request_id,
            "revealed": {each.token: each.original for each in opened if each.refused is None},
            "refused": {each.token: each.refused for each in opened if each.refused},
        }
    )


def _request_line(each: UnmaskRequest, now: datetime) -> str:
    state = each.state(now)
    approval = f" by {each.approver} until {_moment(each.expires_at)}" if each.expires_at else ""
    if each.withdrawn_at:
        approval = f" by {each.withdrawn_by} at {_moment(each.withdrawn_at)}"
    return printable(
        f"{each.request_id}  {_moment(each.requested_at)}  {each.requester}"
        f"  {counted(len(each.tokens), 'token')}  {each.ticket}  {each.reason}"
        f"  [{state}{approval}]"
    )


def _print_audit(rows: Sequence[AuditRow], chain: Chain, expect_hash: str | None) -> None:
    for row in rows:
        moment = _moment(row.at) if row.at else "(no time)"
        click.echo(printable(f"{row.audit_id}  {moment}  {row.actor}  {row.action}  {row.detail}"))
    if chain.broken:
        click.secho(
            f"BROKEN at row {chain.broken.audit_id}: {chain.broken.reason}.", fg="red", err=True
        )
    fitting = "all rows" if chain.broken is None else "before it, all rows"
    click.echo(f"{counted(chain.rows, 'row')} verified: {fitting} fit one another.")
    if not chain.has_expected:
        click.secho(
            f"MISSING: {expect_hash} is the hash of none of them: rows were cut off at the end,"
            " or the chain was computed anew.",
            fg="red",
            err=True,
        )
    click.echo(f"Last hash that fits: {chain.last_hash.hex() or '(none)'}")
    click.echo(
        "Rows cut off at the end cannot be seen from the chain alone: keep this hash elsewhere,"
        " and verify with --expect-hash."
    )


def _audit_json(rows: Sequence[AuditRow], chain: Chain, expect_hash: str | None) -> object:
    return {
        "is_whole": chain.is_whole,
        "rows_that_fit": chain.rows,
        "last_hash": chain.last_hash.hex(),
        "broken": asdict(chain.broken) if chain.broken else None,
        "has_expected_hash": chain.has_expected if expect_hash else None,
        "rows": [
            {
                "audit_id": row.audit_id,
                "at": row.at.isoformat() if row.at else None,
                "person": row.actor,
                "action": row.action,
                "detail": row.detail,
                "hash": row.hash.hex(),
            }
            for row in rows
        ],
    }


def _hash(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.BadParameter("must be hexadecimal.", param_hint="--expect-hash") from None


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def counted(count: int, noun: str) -> str:
    """A count and what is counted."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
