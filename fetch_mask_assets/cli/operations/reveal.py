"""`fetch-mask unmask reveal`: originals go to a terminal or a private file, nowhere else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.wording import counted, printable
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets.operations.unmasking.reveal import RevealedToken, reveal_tokens
from fetch_mask_assets.operations.unmasking.verdicts import UnmaskRefusedError

SOME_REFUSED = 3
"""The exit code of a reveal that refused some of its tokens."""

_PRIVATE = 0o600


@click.command()
@click.argument("request_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the originals to this new file with mode 0600.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, with originals unescaped."
)
def reveal(request_id: int, *, output: Path | None, as_json: bool) -> None:
    """Get the originals of your request ID while its approval lasts.

    Prints `token<TAB>original` to your terminal or to --output. Without --output, standard output
    must be a terminal. Control characters are escaped. Needs the keysets (MASKING_KEYSETS).

    Exit code 3: some tokens were refused, because they were altered, belong to another field, or
    are under a key that the keysets do not have. They are listed on standard error, and the others
    are revealed. Exit code 1: nothing was revealed.
    """
    unmasking = Unmasking(connections.recovery_database().url)
    maskers = read_keyring(connections.keysets()).maskers
    with _private_output(output) as write:
        revealed = reveal_tokens(unmasking.reveal(request_id), maskers)
        write(_json(request_id, revealed) if as_json else _text(revealed))
    refused = [each for each in revealed if each.error]
    for each in refused:
        click.echo(f"{each.token}: {each.error}", err=True)
    if output:
        originals = counted(len(revealed) - len(refused), "original", "originals")
        click.echo(f"{originals} of request {request_id} written to {output}.")
    sys.exit(SOME_REFUSED if refused else 0)


@contextmanager
def _private_output(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that writes originals; a file that could not be written is removed."""
    if path is None:
        _require_terminal()
        yield click.echo
        return
    descriptor = _create(path)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield lambda text: print(text, file=file)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UnmaskRefusedError(
            f"{path} could not be written ({type(error).__name__}) and was removed. The reveal is"
            " recorded. It can be repeated while the approval lasts."
        ) from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _require_terminal() -> None:
    if not sys.stdout.isatty():
        raise UnmaskRefusedError(
            "standard output is not a terminal. Originals go only to a terminal or to a private"
            " file: use --output FILE. Nothing was revealed."
        )


def _create(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    except OSError as error:
        raise UnmaskRefusedError(
            f"{path} cannot be created ({type(error).__name__}). --output must be a new file."
            " Nothing was revealed."
        ) from None


def _text(revealed: Sequence[RevealedToken]) -> str:
    return "\n".join(
        f"{each.token}\t{printable(each.original)}"
        for each in revealed
        if each.original is not None
    )


def _json(request_id: int, revealed: Sequence[RevealedToken]) -> str:
    return json.dumps(
        {
            "request_id": request_id,
            "revealed": {each.token: each.original for each in revealed if each.error is None},
            "refused": {each.token: each.error for each in revealed if each.error},
        }
    )
