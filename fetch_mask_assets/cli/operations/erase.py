"""`fetch-mask erase`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from uuid import uuid4

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.output import progress_text
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.masking.addresses import addresses_in
from fetch_mask_assets.operations.erasure.postgres import (
    SELF_REPORTED,
    Certificate,
    ErasureOrder,
    Erasures,
)
from fetch_mask_assets.operations.erasure.subjects import SubjectKind, Subjects, parse_subjects
from fetch_mask_assets.pipeline.contract.login_event import MIN_REVEALING_LENGTH
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready

_NAMES = {SubjectKind.IP: "IP", SubjectKind.DEVICE_ID: "device id", SubjectKind.USER: "user"}


class EraseError(FetchMaskError):
    """Nothing was erased, or something is left; says which."""


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--ip", "kind", flag_value=SubjectKind.IP.value, help="Erase IPs.")
@click.option(
    "--device-id", "kind", flag_value=SubjectKind.DEVICE_ID.value, help="Erase device ids."
)
@click.option("--user", "kind", flag_value=SubjectKind.USER.value, help="Erase users.")
@click.option("--reason", required=True, help="Why; kept for good. No value in it.")
@click.option("--ticket", required=True, help="Where it was asked for; kept for good.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as one JSON object.")
@click.pass_context
def erase(  # noqa: PLR0913 (click passes options one by one)
    context: click.Context, *, kind: str | None, reason: str, ticket: str, yes: bool, as_json: bool
) -> None:
    """Erase values or users, check that nothing is left, and print a certificate.

    What to erase is read from standard input, one a line, or asked for without showing it; it is
    never an argument, which other users of the machine could see. There is no way back.

    An IP or a device id: its tokens under every enabled key become null in user_logins, whose
    rows stay; its links and its places in requests to unmask go, and so do quarantined messages
    that hold it. A user: their rows and their quarantined messages are deleted.

    Needs a login that is a member of login_ingest_recovery, from LOGIN_RECOVERY_DATABASE_URL.
    Killed at any point, it may be repeated. Exit code 1 if anything may be left. What erasing
    does not reach (queue, backups, extracts, audit): docs/erasure.md.
    """
    _refuse_arguments(context.args)
    if kind is None:
        raise click.UsageError("Say what to erase: --ip, --device-id or --user.")
    _refuse_blank(reason, ticket)
    database = connections.recovery_database()
    keyring = read_keyring(connections.keysets())
    require_ready(database, keyring)
    subjects = parse_subjects(SubjectKind(kind), _lines(SubjectKind(kind)))
    _refuse_revealing(subjects, reason, ticket)
    _confirm(subjects, yes=yes)
    order = ErasureOrder(str(uuid4()), subjects, reason, ticket)
    with progress_text() as say:
        certificate = Erasures(database.url).erase(order, keyring, say)
    _print(certificate, as_json=as_json)
    _refuse_unverified(certificate)


def _refuse_arguments(arguments: Sequence[str]) -> None:
    if arguments:
        raise EraseError(
            "an argument or option is not known. A value is never given as an argument, where the"
            " shell's history and other users see it: give it on standard input. Nothing was"
            " erased."
        )


def _refuse_blank(*texts: str) -> None:
    if not all(text.strip() for text in texts):
        raise EraseError("--reason and --ticket must say something. Nothing was erased.")


def _refuse_revealing(subjects: Subjects, *texts: str) -> None:
    # Shorter ones are in a ticket's number by chance.
    telling = tuple(each for each in subjects.values if len(each) >= MIN_REVEALING_LENGTH)
    holds = Subjects(subjects.kind, telling).holds()
    if any(holds(text) or addresses_in(text) for text in texts):
        raise EraseError(
            "--reason or --ticket holds what is to be erased, or an IP address, and would be kept"
            " for good. Nothing was erased."
        )


def _lines(kind: SubjectKind) -> list[str]:
    if sys.stdin.isatty():
        return [click.prompt(f"The {_NAMES[kind]} to erase", hide_input=True, err=True)]
    try:
        return sys.stdin.buffer.read().decode().split("\n")
    except UnicodeDecodeError:
        raise EraseError("standard input is not UTF-8. Nothing was erased.") from None


def _confirm(subjects: Subjects, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise EraseError(
            "standard input holds the values, so nobody can be asked: add --yes. Nothing was"
            " erased."
        )
    what = f"{len(subjects.values)} {_NAMES[subjects.kind]}(s)"
    click.confirm(f"Erase {what} for good? There is no way back.", abort=True, err=True)


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
        # The database counts all others itself.
        source = " (said by the command)" if name in SELF_REPORTED else ""
        click.echo(f"  {name.replace('_', ' ')}: {value}{source}")


def _refuse_unverified(certificate: Certificate) -> None:
    if certificate.verified:
        return
    raise EraseError(
        f"the erasure is not verified: {certificate.remaining} things and {certificate.held}"
        f" quarantined messages were still found, {certificate.unopened} quarantined messages or"
        f" rows do not open or have come in since, and {certificate.uncovered} rows are under keys"
        " that no token was made with. What was found has come in meanwhile: repeat the command."
        " What does not open needs the keyset that it was made with, or, in the quarantine,"
        " `fetch-mask quarantine discard`."
    )
