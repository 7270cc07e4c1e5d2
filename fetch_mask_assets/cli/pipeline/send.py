"""`fetch-mask send`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.progress import progress_count
from fetch_mask_assets.cli.wording import counted
from fetch_mask_assets.errors import FetchMaskError

_SHOWN_LINES = 5


class SendError(FetchMaskError):
    """A line is not UTF-8, or the queue refused it."""


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def send(file: BinaryIO, *, as_json: bool) -> None:
    """Send each line of FILE to the login queue as one message; - is standard input.

    A line is sent unchanged, whether or not it is a login event. Empty lines are skipped, because
    SQS accepts no empty message. Exit code 1 if a line is not UTF-8 or the queue refused it; the
    other lines are sent.
    """
    sent = refused = 0
    unreadable: list[int] = []
    with connections.queue() as queue, progress_count("Sending") as count:
        for result in queue.send(_lines(file, unreadable)):
            sent, refused = sent + result.succeeded, refused + result.failed
            count(result.succeeded + result.failed)
    if as_json:
        click.echo(json.dumps({"sent": sent, "not_sent": refused + len(unreadable)}))
    else:
        click.echo(f"Sent {counted(sent, 'message', 'messages')}.")
    if unreadable or refused:
        raise SendError(_failures(unreadable, refused))


def _lines(file: BinaryIO, unreadable: list[int]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            text = line.removesuffix(b"\n").decode()
        except UnicodeDecodeError:
            unreadable.append(number)
            continue
        if text.strip("\r"):
            yield text


def _failures(unreadable: list[int], refused: int) -> str:
    first = ", ".join(map(str, unreadable[:_SHOWN_LINES]))
    sentences = [
        f"{len(unreadable)} lines are not UTF-8 and were not sent, the first: line {first}."
        if unreadable
        else "",
        f"The queue refused {refused} messages: SQS refuses those over its limit (1 MiB; 256 KiB"
        " on the local server) and control characters that XML does not allow."
        if refused
        else "",
    ]
    return " ".join(filter(None, sentences))
