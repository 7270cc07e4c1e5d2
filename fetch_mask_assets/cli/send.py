"""`fetch-mask send`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.progress import counting
from fetch_mask_assets.domain.errors import FetchMaskError


class SendError(FetchMaskError):
    """A line cannot be a message, or the queue did not take it."""


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def send(file: BinaryIO, *, as_json: bool) -> None:
    """Send each line of FILE to the login queue as one message; - is standard input.

    A line is sent as it is, whether or not it is a login event. Empty lines are left out: SQS
    takes no empty message. Exit code 1 if the queue did not take every message.
    """
    sent = left = 0
    with connections.queue() as queue, counting("Sending") as count:
        for settled in queue.send(_lines(file)):
            sent, left = sent + settled.done, left + settled.left
            count(settled.done + settled.left)
    if as_json:
        click.echo(json.dumps({"sent": sent, "not_sent": left}))
    else:
        click.echo(f"Sent {sent} messages.")
    if left:
        raise SendError(
            f"the queue did not take {left} messages: SQS refuses messages over 1 MiB and control"
            " characters that XML does not have."
        )


def _lines(file: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            text = line.removesuffix(b"\n").decode()
        except UnicodeDecodeError:
            raise SendError(f"line {number} is not UTF-8: the lines before it are sent.") from None
        if text:
            yield text
