"""The root of the command line. Commands load when they are called, so that help is quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

import click
from dotenv import load_dotenv

from fetch_mask_assets.cli.imports import without_garbage_collection
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.pipeline.queue.process_limits import disable_core_dumps

# Each command: its module in this package, and its line in the list of commands.
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "local": ("local", "Start, stop and inspect the local stack."),
    "send": ("pipeline.send", "Send each line of a file to the login queue."),
    "ingest": (
        "pipeline.ingest",
        "Load messages from the queue into the table until the queue is dry.",
    ),
    "show": ("pipeline.show", "Show the balance, the checks and some rows of the table."),
    "report": ("operations.report", "Make the privacy report: one page to read, print and file."),
    "doctor": ("pipeline.doctor", "Check everything that a run needs."),
    "alert": ("operations.alert", "Send a test alert."),
    "migrate": ("pipeline.migrate", "Bring the database to the schema of this release."),
    "keys": ("operations.keys", "Create, list, check, rotate and retire masking keys."),
    "remask": (
        "operations.remask",
        "Bring the rows of user_logins under the primary keys, after a rotation.",
    ),
    "unmask": (
        "operations.unmask",
        "Get originals back, on the record: request, approve, withdraw, reveal.",
    ),
    "find": ("operations.find", "Find the rows of known values, on the record."),
    "erase": ("operations.erase", "Erase a value or a user, with a certificate."),
    "audit": ("operations.audit", "Show the record of every operation, and verify it."),
    "quarantine": ("operations.quarantine", "Look at, replay and discard quarantined messages."),
    "dead-letters": ("pipeline.dead_letters", "Show and drain the dead-letter queue."),
    "upgrade-md5": (
        "operations.upgrade_md5",
        "Replace MD5 digests in user_logins by tokens, in place.",
    ),
    "completion": ("completion", "Print the completion script for a shell."),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are used.

    Source: https://click.palletsprojects.com/en/stable/complex/#lazily-loading-subcommands
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        if cmd_name not in _COMMANDS:
            return None
        with without_garbage_collection():
            module = importlib.import_module(f"fetch_mask_assets.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's signature)
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


_EXIT_CODES = (
    "Exit codes: 0 success; 1 refused, failed, or a problem was found, with one sentence on"
    " standard error; 2 invalid command line; 3 partly done."
)


@click.group(
    cls=_LazyGroup, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="fetch_mask_assets")
def cli() -> None:
    """Login events from SQS to Postgres, with IPs and device ids masked on the way.

    Settings come from the environment and from .env in the current directory.
    """


def main() -> None:
    """Runs a command; one of the product's errors is one sentence and exit code 1."""
    disable_core_dumps()
    load_dotenv(".env")
    try:
        cli()
    except FetchMaskError as error:
        click.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(1)
