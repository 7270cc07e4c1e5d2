"""`fetch-mask quarantine`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from uuid import uuid4

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.progress import progress_count
from fetch_mask_assets.cli.wording import counted, printable
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.operations.quarantine.messages import (
    MessageFilter,
    QuarantineBalance,
    QuarantinedMessage,
    require_discard_reason,
)
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets.operations.quarantine.profiles import ProfileCount
from fetch_mask_assets.operations.quarantine.replay import ReplayResult
from fetch_mask_assets.pipeline.contract.rejection import Reason
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready

_message_ids = click.argument("message_ids", nargs=-1, metavar="[MESSAGE_ID]...")
_reason_code = click.option(
    "--reason-code",
    type=click.Choice([reason.value for reason in Reason]),
    help="All messages with this reason, as `quarantine list` shows it.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


class QuarantineError(FetchMaskError):
    """A quarantined message was not found."""


@click.group()
def quarantine() -> None:
    """List, show, replay and discard quarantined messages.

    A quarantined message broke the contract of a login event. Its body is sealed. The commands
    need a login that is a member of login_ingest_recovery (LOGIN_RECOVERY_DATABASE_URL) and the
    keysets (MASKING_KEYSETS). Each call is recorded in the audit.
    """


@quarantine.command("list")
@_json
def list_(*, as_json: bool) -> None:
    """Count the messages by reason, field and profile.

    The profile is the set of keys of a body. Keys of the contract are shown by name. Other keys
    are only counted, because a key may itself be an IP. Bodies are opened in memory and never
    shown.
    """
    store = _store()
    sealer = read_keyring(connections.keysets()).sealer
    with progress_count("Opening") as report_progress:
        counts = store.profiles(sealer, report_progress)
    balance = store.balance()
    if as_json:
        click.echo(_list_json(counts, balance))
    else:
        Console().print(_list_table(counts))
        click.echo(_balance_text(balance))


@quarantine.command()
@click.argument("message_id")
@_json
def show(message_id: str, *, as_json: bool) -> None:
    """Print the body of one message, with its raw values.

    The call is committed to the audit before the body is printed. Control characters are escaped.
    Do not write the output to a file.
    """
    message = _store().show(message_id)
    if message is None:
        raise QuarantineError(
            "no message with this id is in the quarantine. It may have been replayed, discarded,"
            " expired or erased."
        )
    sealer = read_keyring(connections.keysets()).sealer
    body = sealer.open(message.sealed_body, message.message_id)
    click.echo(json.dumps(_message_json(message, body)) if as_json else printable(body))


@quarantine.command()
@_message_ids
@_reason_code
@click.option("--all", "everything", is_flag=True, help="All messages.")
@_json
def replay(
    message_ids: tuple[str, ...], reason_code: str | None, *, everything: bool, as_json: bool
) -> None:
    """Validate and mask messages again, with the current contract and masking rules.

    Select messages by id, by --reason-code or with --all. A message that is now a login becomes a
    row of user_logins, dated by the day on which it was sent, and leaves the quarantine in the
    same transaction. Other messages stay, with their current reason. The command can be repeated,
    run concurrently or be killed: no message is loaded twice, and none is lost.
    """
    selected = _filter(message_ids, reason_code, everything=everything)
    store, database = _store(), connections.recovery_database()
    keyring = read_keyring(connections.keysets())
    require_ready(database, keyring)
    with _bar("Replaying", store.count(selected)) as report_progress:
        result = store.replay_all(selected, keyring, report_progress)
    _print_result(result, as_json=as_json)


@quarantine.command()
@_message_ids
@_reason_code
@click.option(
    "--reason", required=True, help="Why, kept permanently. Do not put an IP or a device id in it."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_json
def discard(
    message_ids: tuple[str, ...], reason_code: str | None, reason: str, *, yes: bool, as_json: bool
) -> None:
    """Delete messages permanently.

    Select messages by id or by --reason-code. Their ids stay in the ledger, so that they are not
    loaded if the queue delivers them again. The balance of the quarantine counts them.
    """
    require_discard_reason(reason)
    selected = _filter(message_ids, reason_code, everything=False)
    store = _store()
    count = store.count(selected)
    if count and not yes:
        messages = counted(count, "quarantined message", "quarantined messages")
        click.confirm(f"Discard {messages} permanently?", abort=True, err=True)
    with _bar("Discarding", count) as report_progress:
        steps = store.discard(str(uuid4()), selected, reason)
        discarded = sum(_reported(steps, report_progress))
    if as_json:
        click.echo(json.dumps({"discarded": discarded}))
    else:
        click.echo(f"Discarded {counted(discarded, 'message', 'messages')}.")


def _store() -> Quarantine:
    return Quarantine(connections.recovery_database().url)


def _filter(
    message_ids: Sequence[str], reason_code: str | None, *, everything: bool
) -> MessageFilter:
    if bool(message_ids) + bool(reason_code) + everything != 1:
        raise click.UsageError("Select messages in exactly one way: see --help.")
    return MessageFilter(tuple(message_ids) or None, reason_code)


def _reported(steps: Iterator[int], report_progress: Callable[[int], None]) -> Iterator[int]:
    for step in steps:
        report_progress(step)
        yield step


def _print_result(result: ReplayResult, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(result)))
        return
    replayed = counted(result.replayed, "message", "messages")
    click.echo(f"{replayed} replayed. {result.still_rejected} still rejected.")
    if result.unreadable:
        click.echo(
            f"{result.unreadable} of these cannot be opened: the keyset of the quarantine does not"
            " have their key.",
            err=True,
        )


def _message_json(message: QuarantinedMessage, body: str) -> dict[str, str | None]:
    return {
        "message_id": message.message_id,
        "reason": message.reason,
        "field": message.field,
        "sent_at": message.sent_at.isoformat(),
        "quarantined_at": message.quarantined_at.isoformat(),
        "body": body,
    }


def _list_json(counts: Sequence[ProfileCount], balance: QuarantineBalance) -> str:
    profiles = [
        asdict(each)
        | {"first_seen": each.first_seen.isoformat(), "last_seen": each.last_seen.isoformat()}
        for each in counts
    ]
    messages = sum(each.messages for each in counts)
    return json.dumps({"messages": messages, "profiles": profiles, "balance": asdict(balance)})


def _list_table(counts: Sequence[ProfileCount]) -> Table:
    columns = ("field", "reason", "profile", "messages", "first seen", "last seen")
    table = Table(*columns, title="Quarantined messages", title_justify="left")
    table.columns[2].overflow = "fold"
    for each in counts:
        times = (f"{at:%Y-%m-%d %H:%M}" for at in (each.first_seen, each.last_seen))
        cells = (each.field or "(body)", each.reason, each.profile, str(each.messages), *times)
        table.add_row(*map(Text, cells))
    return table


def _balance_text(balance: QuarantineBalance) -> str:
    warning = "" if balance.is_balanced else " This does NOT add up: see docs/quarantine.md."
    return (
        f"Balance: {balance.quarantined} quarantined = {balance.replayed} replayed"
        f" + {balance.discarded} discarded + {balance.expired} expired"
        f" + {balance.erased} erased + {balance.waiting} waiting.{warning}"
    )


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that advances a progress bar; no output without a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=total)
        yield lambda more: progress.advance(task, more)
