"""`fetch-mask doctor`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict

import click

from fetch_mask_assets import settings
from fetch_mask_assets.cli import connections
from fetch_mask_assets.cli.findings import print_findings
from fetch_mask_assets.cli.instance import InstanceError, dagster_instance
from fetch_mask_assets.defs.operations.check_history import STORAGE_ERRORS
from fetch_mask_assets.errors import FetchMaskError, SettingError
from fetch_mask_assets.pipeline.queue.dead_letters import RetentionPolicy, redrive_problems
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue
from fetch_mask_assets.pipeline.warehouse.ledger import ledger_problems
from fetch_mask_assets.pipeline.warehouse.readiness import Finding, findings

_NO_POLICY = (
    "the login queue has no redrive policy: a message that kills the process comes back forever."
    " Give the queue a dead-letter queue with maxReceiveCount 5."
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(*, as_json: bool) -> None:
    """Check everything that a run needs, and print a remedy for each problem.

    Changes nothing. Exit code 1 if there is a problem.
    """
    found = [*_settings(), *_services(), _alerts(), _dagster()]
    ok = all(finding.ok for finding in found)
    if as_json:
        click.echo(json.dumps({"ok": ok, "findings": [asdict(each) for each in found]}))
    else:
        print_findings(found)
    sys.exit(0 if ok else 1)


def _settings() -> Iterator[Finding]:
    for name in settings.REQUIRED:
        try:
            settings.required(os.environ, name)
        except SettingError as error:
            yield Finding(name, ok=False, description=str(error))
        else:
            yield Finding(name, ok=True, description="is set.")
    try:
        connections.tuning()
    except SettingError as error:
        yield Finding("settings", ok=False, description=str(error))


def _services() -> tuple[Finding, ...]:
    try:
        with connections.queue() as queue:
            found = findings(connections.database(), connections.keysets(), queue, commits=True)
            return (*found, _dead_letters(queue))
    except FetchMaskError as error:
        return (Finding("services", ok=False, description=f"not checked: {error}"),)


def _dead_letters(queue: LoginQueue) -> Finding:
    name = "dead letters"
    try:
        policy, url = queue.retention(), connections.dead_letter_queue_url(queue)
        if url is None:
            return Finding(name, ok=False, description=_NO_POLICY)
        with connections.queue(url) as dead_letter_queue:
            waiting = dead_letter_queue.depth().waiting
            kept_for = dead_letter_queue.retention().retention_seconds
            problems = (
                *redrive_problems(policy, kept_for),
                *_ledger_problems(dead_letter_queue, policy.retention_seconds, kept_for),
            )
    except FetchMaskError as error:
        return Finding(name, ok=False, description=str(error))
    return Finding(
        name, ok=not problems, description=" ".join((_waiting(policy, waiting), *problems))
    )


def _ledger_problems(
    dead_letter_queue: LoginQueue, queue_seconds: int, dead_letter_seconds: int
) -> Iterator[str]:
    if dead_letter_queue.is_fifo:
        keep_days = connections.tuning().ledger_days
        yield from ledger_problems(keep_days, queue_seconds, dead_letter_seconds)


def _waiting(policy: RetentionPolicy, waiting: int) -> str:
    receives = (
        f"after {policy.redrive.max_receives} receives"
        if policy.redrive
        else "though it has no redrive policy"
    )
    description = f"messages go to the dead-letter queue {receives}; {waiting} wait there"
    return (
        f"{description}: `fetch-mask dead-letters drain` takes them."
        if waiting
        else f"{description}."
    )


def _alerts() -> Finding:
    try:
        names = connections.alert_destinations().names
    except SettingError as error:
        return Finding("alerts", ok=False, description=str(error))
    where = ", ".join(f"the {name}" for name in names)
    return Finding(
        "alerts", ok=True, description=f"sent to {where}; test with `fetch-mask alert test`."
    )


def _dagster() -> Finding:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        description = (
            "DAGSTER_HOME is not set: `ingest` works, but Dagster's UI does not show its runs."
        )
        return Finding("dagster", ok=True, description=description)
    try:
        with dagster_instance() as instance:
            count = instance.get_runs_count()
    except InstanceError as error:
        return Finding("dagster", ok=False, description=str(error))
    except STORAGE_ERRORS as error:
        description = (
            f"Dagster's storage does not answer ({type(error).__name__}): check its database."
        )
        return Finding("dagster", ok=False, description=description)
    return Finding("dagster", ok=True, description=f"its storage answers and holds {count} runs.")
