"""`fetch-mask unmask`: request, approve, withdraw, list. `reveal` is beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TextIO

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.operations.reveal import reveal
from fetch_mask_assets.cli.wording import counted, printable, utc_time
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets.operations.unmasking.requests import (
    UnmaskRequest,
    parse_tokens,
    require_line_of_text,
)
from fetch_mask_assets.operations.unmasking.verdicts import UnmaskRefusedError

# click's \b keeps the lines after it as they are.
_REQUEST_EXAMPLES = """Examples:

\b
  fetch-mask unmask request --file tokens.txt --reason "account takeover" --ticket SEC-12
  fetch-mask unmask request --reason "account takeover" --ticket SEC-12 \\
      --query "SELECT DISTINCT masked_ip FROM user_logins WHERE user_id = 'u1'"

Then another person runs `fetch-mask unmask approve`.
"""


@click.group()
def unmask() -> None:
    """Get originals of tokens, with an approval and an audit record.

    One person requests, another approves, the first reveals. The actor is the database login of
    LOGIN_RECOVERY_DATABASE_URL. Both logins must be members of login_ingest_recovery. Each step
    and each refusal is committed to the audit before anything else happens.
    """


unmask.add_command(reveal)


@unmask.command(epilog=_REQUEST_EXAMPLES)
@click.option("--file", type=click.File("r"), help="Read tokens, one per line. - reads stdin.")
@click.option(
    "--query",
    metavar="SQL",
    help="Read tokens from the first column of this SELECT. It runs as you, read-only. Other"
    " processes can see arguments: never put a raw value into the query.",
)
@click.option(
    "--reason",
    required=True,
    help="Why, in one line. The audit keeps it permanently: no raw values.",
)
@click.option("--ticket", required=True, help="The ticket in which this was decided.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def request(
    *, file: TextIO | None, query: str | None, reason: str, ticket: str, as_json: bool
) -> None:
    """Request the originals of tokens.

    Takes distinct tokens from --file or --query: at most LOGIN_MAX_RECOVERY_VALUES (100), and at
    most max_tokens of login_ingest.unmask_policy. Prints the id of the request.
    """
    limit = connections.tuning().max_recovery_values
    unmasking = _unmasking()
    texts = require_line_of_text("reason", reason), require_line_of_text("ticket", ticket)
    tokens = parse_tokens(_lines(unmasking, file, query, limit), limit)
    request_id = unmasking.request(tokens, *texts, limit)
    if as_json:
        click.echo(json.dumps({"request_id": request_id, "token_count": len(tokens)}))
    else:
        click.echo(
            f"Request {request_id} for {counted(len(tokens), 'token', 'tokens')} is recorded."
            f" Another person approves it: fetch-mask unmask approve {request_id}"
        )


@unmask.command()
@click.argument("request_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@click.option(
    "--minutes",
    default=60,
    show_default=True,
    type=click.IntRange(1, 2**31 - 1),
    help="How long the approval lasts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def approve(request_id: int, *, minutes: int, as_json: bool) -> None:
    """Approve another person's request ID for a limited time.

    Read the request first: `fetch-mask unmask list`. The maximum is max_minutes of
    login_ingest.unmask_policy (480).
    """
    until = _unmasking().approve(request_id, minutes)
    if as_json:
        click.echo(json.dumps({"request_id": request_id, "approved_until": until.isoformat()}))
    else:
        click.echo(f"Request {request_id} is approved until {utc_time(until)}.")


@unmask.command()
@click.argument("request_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def withdraw(request_id: int, *, as_json: bool) -> None:
    """Withdraw request ID, approved or not, permanently.

    The requester, the approver and any other member of login_ingest_recovery can withdraw it.
    Afterwards it cannot be approved or revealed; make a new request instead. Repeating the command
    changes nothing. Originals that were already revealed stay known.
    """
    withdrawal = _unmasking().withdraw(request_id)
    if as_json:
        answer = {"request_id": request_id, **withdrawal._asdict()}
        click.echo(json.dumps(answer, default=datetime.isoformat))
    else:
        click.echo(
            printable(
                f"Request {request_id} is withdrawn, by {withdrawal.withdrawn_by} at"
                f" {utc_time(withdrawal.withdrawn_at)}."
            )
        )


@unmask.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array, with the tokens.")
def list_requests(*, as_json: bool) -> None:
    """List all requests, newest first: requester, number of tokens, ticket, reason, state."""
    requests, now = _unmasking().requests()
    if as_json:
        rows = [asdict(each) | {"state": each.state(now)} for each in requests]
        click.echo(json.dumps(rows, default=datetime.isoformat))
        return
    for each in requests:
        click.echo(_request_line(each, now))
    if not requests:
        click.echo("There are no requests.")


def _unmasking() -> Unmasking:
    return Unmasking(connections.recovery_database().url)


def _lines(
    unmasking: Unmasking, file: TextIO | None, query: str | None, limit: int
) -> Iterable[str]:
    if (file is None) == (query is None):
        raise click.UsageError("Give either --file or --query.")
    if query is not None:
        return unmasking.first_column(query, limit)
    return _text_lines(file) if file else ()


def _text_lines(file: TextIO) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError:
        raise UnmaskRefusedError(
            "the file of tokens is not UTF-8. Nothing was requested."
        ) from None


def _request_line(each: UnmaskRequest, now: datetime) -> str:
    tokens = counted(len(each.tokens), "token", "tokens")
    cells = (str(each.request_id), utc_time(each.requested_at), each.requester, tokens)
    return printable("  ".join((*cells, each.ticket, each.reason, f"[{_state(each, now)}]")))


def _state(each: UnmaskRequest, now: datetime) -> str:
    state = each.state(now)
    if each.withdrawn_at:
        return f"{state} by {each.withdrawn_by} at {utc_time(each.withdrawn_at)}"
    if each.expires_at:
        return f"{state} by {each.approver} until {utc_time(each.expires_at)}"
    return state
