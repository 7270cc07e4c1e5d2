"""`fetch-mask erase`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TypeVar

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.progress import progress_text
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.masking.fields import MASKED_FIELDS
from fetch_mask_assets.operations.erasure.certificate import (
    SELF_REPORTED,
    Certificate,
    require_verified,
)
from fetch_mask_assets.operations.erasure.order import erasure_order, require_text
from fetch_mask_assets.operations.erasure.postgres import Erasures
from fetch_mask_assets.operations.erasure.subjects import USER, Subjects, parse_subjects
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready

_LABELS = {field.name: field.label for field in MASKED_FIELDS} | {USER: "user"}
_OPTIONS = {field.name: field.option for field in MASKED_FIELDS} | {USER: "--user"}

_Command = TypeVar("_Command", bound=Callable[..., None])


def _kind_options(command: _Command) -> _Command:
    """Adds an option for each kind of subject; it gives the parameter `kind`."""
    for kind, option in reversed(_OPTIONS.items()):
        text = f"Erase {_LABELS[kind]}s."
        command = click.option(option, "kind", flag_value=kind, help=text)(command)
    return command


class EraseError(FetchMaskError):
    """The command was not given values or a confirmation; nothing was erased."""


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@_kind_options
@click.option("--reason", required=True, help="Why, kept permanently. Do not put a value in it.")
@click.option("--ticket", required=True, help="The ticket of the request, kept permanently.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as one JSON object.")
@click.pass_context
def erase(  # noqa: PLR0913 (click passes options one by one)
    context: click.Context, *, kind: str | None, reason: str, ticket: str, yes: bool, as_json: bool
) -> None:
    """Erase values or users, check what is left, and print a certificate.

    Reads the values from standard input, one per line. At a terminal it prompts for one value
    without showing it. Values are never arguments, which other users of the machine can see. An
    erasure cannot be undone.

    Values of a masked field: their tokens under every key of the keyset, enabled or disabled,
    become null in user_logins; the rows stay. Their links, their tokens in requests to unmask, and
    the quarantined messages that have the value are deleted. Users: their rows and their
    quarantined messages are deleted.

    Needs the keysets (MASKING_KEYSETS) and a login that is a member of login_ingest_recovery
    (LOGIN_RECOVERY_DATABASE_URL). The command can be repeated after it was killed. Exit code 1 if
    a value may be left. An erasure does not reach the queue, backups, extracts and the audit: see
    docs/erasure.md.
    """
    _refuse_arguments(context.args)
    if kind is None:
        raise click.UsageError(f"Give one of {', '.join(_OPTIONS.values())}.")
    require_text(reason, ticket)
    database = connections.recovery_database()
    keyring = read_keyring(connections.keysets())
    require_ready(database, keyring)
    subjects = parse_subjects(kind, _lines(kind))
    order = erasure_order(subjects, reason, ticket)
    _confirm(subjects, yes=yes)
    with progress_text() as report_progress:
        certificate = Erasures(database.url).erase(order, keyring, report_progress)
    _print(certificate, as_json=as_json)
    require_verified(certificate)


def _refuse_arguments(arguments: Sequence[str]) -> None:
    if arguments:
        raise EraseError(
            "unknown argument or option. Values are never given as arguments, which the shell's"
            " history keeps and other users can see: give them on standard input. Nothing was"
            " erased."
        )


def _lines(kind: str) -> list[str]:
    if sys.stdin.isatty():
        return [click.prompt(f"The {_LABELS[kind]} to erase", hide_input=True, err=True)]
    try:
        return sys.stdin.buffer.read().decode().split("\n")
    except UnicodeDecodeError:
        raise EraseError("standard input is not UTF-8. Nothing was erased.") from None


def _confirm(subjects: Subjects, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise EraseError(
            "standard input has the values and cannot confirm the erasure: add --yes. Nothing was"
            " erased."
        )
    values = f"{len(subjects.values)} {_LABELS[subjects.kind]}(s)"
    click.confirm(f"Erase {values} permanently? This cannot be undone.", abort=True, err=True)


def _print(certificate: Certificate, *, as_json: bool) -> None:
    values = {each.name: getattr(certificate, each.name) for each in fields(certificate)}
    texts = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
    }
    if as_json:
        click.echo(json.dumps(texts | {"self_reported": SELF_REPORTED}))
        return
    click.echo("Certificate of erasure")
    for name, value in texts.items():
        source = " (reported by the command)" if name in SELF_REPORTED else ""
        click.echo(f"  {name.replace('_', ' ')}: {value}{source}")
