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
from fetch_mask_assets.cli.output import progress_count
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.masking.addresses import addresses_in
from fetch_mask_assets.operations.quarantine.postgres import (
    Choice,
    Quarantine,
    QuarantineBalance,
    QuarantinedMessage,
    Replayed,
)
from fetch_mask_assets.pipeline.contract.body_profile import ProfileCount, printable
from fetch_mask_assets.pipeline.contract.rejection import Reason
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready

_REASONS = click.Choice([reason.value for reason in Reason])


class QuarantineError(FetchMaskError):
    """What was asked of the quarantine cannot be done; says why."""


@click.group()
def quarantine() -> None:
    """Look at, replay and discard quarantined messages, on the record.

    A quarantined message broke the contract of a login event; its body is sealed. Every command
    but --help needs a login that is a member of login_ingest_recovery, taken from
    LOGIN_RECOVERY_DATABASE_URL, and is recorded in the audit under its name.
    """


@quarantine.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(*, as_json: bool) -> None:
    """Count the messages by reason, field and shape.

    The shape is the set of keys that a body has: the contract's by name, any others only as a
    number, because a key may itself be an IP. Bodies are opened in memory and never shown.
    """
    store = _store()
    sealer = read_keyring(connections.keysets()).sealer
    with progress_count("Opening") as count:
        counts = store.shapes(sealer, count)
    account = store.account()
    if as_json:
        click.echo(_list_json(counts, account))
    else:
        console = Console()
        console.print(_list_table(counts))
        click.echo(_sentence(account))


@quarantine.command()
@click.argument("message_id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(message_id: str, *, as_json: bool) -> None:
    """Open one message and print its body, which holds raw values.

    That it was shown, to whom and when, is recorded and committed first. What would command the
    terminal is printed as an escape. Do not send the output to a file.
    """
    message = _store().show(message_id)
    if message is None:
        raise QuarantineError("no message of this id is in the quarantine.")
    sealer = read_keyring(connections.keysets()).sealer
    body = sealer.open(message.sealed_body, message.message_id)
    click.echo(json.dumps(_message_json(message, body)) if as_json else printable(body))


@quarantine.command()
@click.argument("message_ids", nargs=-1, metavar="[MESSAGE_ID]...")
@click.option("--reason", type=_REASONS, help="All messages of this reason.")
@click.option("--all", "everything", is_flag=True, help="All messages.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay(
    message_ids: tuple[str, ...], reason: str | None, *, everything: bool, as_json: bool
) -> None:
    """Put messages through today's contract and masking.

    What is a login now becomes a row of user_logins, with the day on which the message was sent,
    and leaves the quarantine in the same transaction; what is none stays, with today's reason.
    It may be repeated, run twice at once, or be killed: no message loads twice, none is lost.
    """
    choice = _choice(message_ids, reason, everything=everything)
    store, database = _store(), connections.recovery_database()
    keyring = read_keyring(connections.keysets())
    require_ready(database, keyring)
    replay_id, unopened = str(uuid4()), 0
    with _bar("Replaying", store.count(choice)) as advance:
        for step in store.replay(replay_id, choice, keyring):
            unopened += step.unopened
            advance(step.messages)
    done = store.replayed(replay_id)
    _print_replayed(Replayed(done.replayed, done.still_rejected, unopened), as_json=as_json)


@quarantine.command()
@click.argument("message_ids", nargs=-1, metavar="[MESSAGE_ID]...")
@click.option("--reason", type=_REASONS, help="All messages of this reason.")
@click.option("--why", required=True, help="Why; kept for good. No IP, no device id in it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def discard(
    message_ids: tuple[str, ...], reason: str | None, why: str, *, yes: bool, as_json: bool
) -> None:
    """Delete messages for good.

    They stay in the ledger, so that they do not load if the queue delivers them again, and are
    counted in the quarantine's account.
    """
    if not why.strip():
        raise QuarantineError("--why says nothing: say why the messages are discarded.")
    if addresses_in(why):
        raise QuarantineError("--why holds an IP address, and would be kept for good.")
    choice = _choice(message_ids, reason, everything=False)
    store = _store()
    count = store.count(choice)
    if count and not yes:
        click.confirm(f"Discard {count} quarantined messages for good?", abort=True, err=True)
    with _bar("Discarding", count) as advance:
        gone = sum(_advanced(store.discard(str(uuid4()), choice, why), advance))
    click.echo(json.dumps({"discarded": gone}) if as_json else f"Discarded {gone} messages.")


def _store() -> Quarantine:
    return Quarantine(connections.recovery_database().url)


def _choice(message_ids: Sequence[str], reason: str | None, *, everything: bool) -> Choice:
    if bool(message_ids) + bool(reason) + everything != 1:
        raise click.UsageError("Say which messages in exactly one way: see --help.")
    return Choice(tuple(message_ids) or None, reason)


def _advanced(steps: Iterator[int], advance: Callable[[int], None]) -> Iterator[int]:
    for step in steps:
        advance(step)
        yield step


def _print_replayed(done: Replayed, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(done)))
        return
    click.echo(
        f"{done.replayed} messages are logins now; {done.still_rejected} are still none and stay."
    )
    if done.unopened:
        click.echo(
            f"{done.unopened} of these do not open: the keyset of the quarantine lacks their key.",
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


def _list_json(counts: Sequence[ProfileCount], account: QuarantineBalance) -> str:
    shapes = [
        asdict(each) | {"since": each.since.isoformat(), "last_seen": each.last_seen.isoformat()}
        for each in counts
    ]
    messages = sum(each.messages for each in counts)
    return json.dumps({"messages": messages, "shapes": shapes, "account": asdict(account)})


def _list_table(counts: Sequence[ProfileCount]) -> Table:
    columns = ("field", "reason", "shape", "messages", "since", "last seen")
    table = Table(*columns, title="Quarantined messages", title_justify="left")
    table.columns[2].overflow = "fold"
    for each in counts:
        times = (f"{at:%Y-%m-%d %H:%M}" for at in (each.since, each.last_seen))
        cells = (each.field or "(body)", each.reason, each.shape, str(each.messages), *times)
        table.add_row(*map(Text, cells))
    return table


def _sentence(account: QuarantineBalance) -> str:
    verdict = "" if account.holds else " This does NOT add up: see docs/quarantine.md."
    return (
        f"Account: {account.quarantined} quarantined = {account.replayed} replayed"
        f" + {account.discarded} discarded + {account.expired} expired"
        f" + {account.erased} erased + {account.waiting} waiting.{verdict}"
    )


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A call that moves a bar with the time left; silent without a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=total)
        yield lambda more: progress.advance(task, more)
