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
from fetch_mask_assets.cli.instance import InstanceError, dagster_instance
from fetch_mask_assets.defs.operations.check_history import STORAGE_ERRORS
from fetch_mask_assets.errors import FetchMaskError, SettingError
from fetch_mask_assets.pipeline.queue.dead_letters import QueueTerms, weaknesses
from fetch_mask_assets.pipeline.queue.sqs import LoginQueue
from fetch_mask_assets.pipeline.warehouse.readiness import Finding, findings

_NO_POLICY = (
    "the login queue has no redrive policy: a message that kills the process comes back for ever."
    " Give the queue a dead-letter queue with maxReceiveCount 5."
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(*, as_json: bool) -> None:
    """Check each thing that a run needs, and say what to do where it is not well.

    Changes nothing. Exit code 1 if anything is not well.
    """
    found = [*_settings(), *_services(), _alerts(), _dagster()]
    is_well = all(finding.is_well for finding in found)
    if as_json:
        click.echo(json.dumps({"is_well": is_well, "findings": [asdict(each) for each in found]}))
    else:
        _print(found)
    sys.exit(0 if is_well else 1)


def _print(found: list[Finding]) -> None:
    for each in found:
        mark, color = ("ok  ", "green") if each.is_well else ("FAIL", "red")
        click.echo(f"{click.style(mark, fg=color)}  {each.name}: {each.says}")


def _settings() -> Iterator[Finding]:
    for name in settings.REQUIRED:
        try:
            settings.required(os.environ, name)
        except SettingError as error:
            yield Finding(name, is_well=False, says=str(error))
        else:
            yield Finding(name, is_well=True, says="is set.")
    try:
        connections.tuning()
    except SettingError as error:
        yield Finding("numbers", is_well=False, says=str(error))


def _services() -> tuple[Finding, ...]:
    try:
        with connections.queue() as queue:
            known = findings(connections.database(), connections.keysets(), queue, commits=True)
            return (*known, _dead_letters(queue))
    except FetchMaskError as error:
        return (Finding("services", is_well=False, says=f"not asked: {error}"),)


def _dead_letters(queue: LoginQueue) -> Finding:
    name = "dead letters"
    try:
        terms, url = queue.terms(), connections.dead_letter_queue_url(queue)
        if url is None:
            return Finding(name, is_well=False, says=_NO_POLICY)
        with connections.queue(url) as dead_letter_queue:
            waiting = dead_letter_queue.depth().waiting
            weak = tuple(weaknesses(terms, dead_letter_queue.terms().retention_seconds))
    except FetchMaskError as error:
        return Finding(name, is_well=False, says=str(error))
    return Finding(name, is_well=not weak, says=" ".join((_waiting(terms, waiting), *weak)))


def _waiting(terms: QueueTerms, waiting: int) -> str:
    receives = f"after {terms.redrive.max_receives} receives" if terms.redrive else "by no policy"
    says = f"messages go to the dead-letter queue {receives}; {waiting} wait there"
    return f"{says}: `fetch-mask dead-letters drain` takes them." if waiting else f"{says}."


def _alerts() -> Finding:
    try:
        names = connections.alert_destinations().names
    except SettingError as error:
        return Finding("alerts", is_well=False, says=str(error))
    where = ", ".join(f"the {name}" for name in names)
    return Finding("alerts", is_well=True, says=f"they go to {where}; try with `alert test`.")


def _dagster() -> Finding:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        says = "DAGSTER_HOME is not set: `ingest` works, but its runs are not kept for the UI."
        return Finding("dagster", is_well=True, says=says)
    try:
        with dagster_instance() as instance:
            count = instance.get_runs_count()
    except InstanceError as error:
        return Finding("dagster", is_well=False, says=str(error))
    except STORAGE_ERRORS as error:
        says = f"Dagster's storage does not answer ({type(error).__name__}): check its database."
        return Finding("dagster", is_well=False, says=says)
    return Finding("dagster", is_well=True, says=f"its storage answers and holds {count} runs.")
