"""`fetch-mask alert`."""

from __future__ import annotations

import sys
import time

import click

from fetch_mask_assets.cli import connections
from fetch_mask_assets.errors import AlertError
from fetch_mask_assets.operations.alerts.alert import Alert, make_test_alert
from fetch_mask_assets.operations.alerts.destinations import AlertDestinations


@click.group()
def alert() -> None:
    """Alerts: failed checks, failed runs, a table that is no longer loaded."""


@alert.command()
def test() -> None:
    """Send a test alert to every destination that is set.

    Exit code 1 if a delivery failed.
    """
    destinations = connections.alert_destinations()
    sent = make_test_alert(time.time())
    arrived = [_try(destinations, name, sent) for name in destinations.names]
    sys.exit(0 if all(arrived) else 1)


def _try(destinations: AlertDestinations, name: str, sent: Alert) -> bool:
    try:
        destinations.send(name, sent)
    except AlertError as error:
        click.echo(f"{click.style('FAIL', fg='red')}  {name}: {error}")
        return False
    click.echo(f"{click.style('ok  ', fg='green')}  {name}: accepted the alert {sent.id}.")
    return True
