"""Writes docs/faults.md from the results of campaigns: each fault, how often, what was found.

What was never tried is listed as such: a page without a line for a fault would pass for a promise.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from fetch_mask_assets_tests.chaos.invariants import INVARIANTS
from fetch_mask_assets_tests.chaos.scenarios import SCENARIOS

UNTRIED = """\
The clocks of the queue and of the database's server: only the process's own clock steps, by \
libfaketime, and its monotonic clock stays. AWS refuses requests whose clock is minutes off.
A full disk of the database's server, and a serialisation failure: a trigger raises their errors.
A database host that dies without closing its connections. That a connection would notice within \
a minute is tested as a setting of its socket only.
A connection that stays open and is never answered, as through a proxy that swallows a statement.
A real fail-over: the same server turns read-only, and its connections break.
An hour of an outage as time: 240 ticks of the sensor stand for it, evaluated one after the other \
and not by the daemon.
A retry that Dagster starts by itself: it is the same as the retry from the page, which is tried.
AWS itself: the queue is a server of the tests that behaves as AWS documents it, and worse.
A full local disk: a limit of no bytes for any file stands in for it.
Raw values in memory. For this page they are looked for, in every encoding, in Dagster's storage, \
all files of the process, its output, the tables and the server's log; a test of its own looks \
after each kind of failure in the write-ahead log, command lines and environments too.
""".splitlines()

_TEXT = """\
# What was broken, and what held

This page is written by the harness: `make chaos`. It kills real processes, breaks real connections
to a real Postgres, and makes a queue over HTTP misbehave. After each fault the fault ends, the
pipeline drains, and what must hold is checked by a reference that knows only what was sent and
what is in the tables and on the queues.

    make chaos                       # every scenario once; prints its seed
    make chaos SEED={seed}             # the same faults again
    make chaos MINUTES=60            # rounds with new seeds, for an hour
    make chaos ONLY='SIGTERM'        # scenarios whose name matches; this page stays as it was

A seed gives the same choices again: which call meets which fault, after how many bytes a connection
breaks. When threads and processes get their turn stays the machine's choice.

## What must hold

| | |
|---|---|
{invariants}

Each of the nine is shown to be able to fail by a test of its own.

## What was tried

{summary}

{rows}

## What does not hold

{broken}

## What was not tried

{untried}
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A result, as a campaign wrote it."""

    name: str
    row: str
    checks: tuple[str, ...]
    seed: int
    seconds: float
    found: Mapping[str, Sequence[str]]
    commit: str = "unknown"
    untried: str = ""
    """Why it could not be tried; empty if it was."""


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--page", type=click.Path(path_type=Path), default=Path("docs/faults.md"))
def report(results: tuple[Path, ...], page: Path) -> None:
    """Write the page from files of results; without all scenarios, it stays as it was."""
    lines = [Line(**json.loads(text)) for path in results for text in path.read_text().splitlines()]
    missing = {each.name for each in SCENARIOS} - {line.name for line in lines}
    if missing:
        click.echo(f"{page} stays as it was: there is no result of {len(missing)} scenarios.")
        return
    page.write_text(as_page(lines), encoding="utf-8")


def as_page(lines: Sequence[Line]) -> str:
    """The page, as Markdown."""
    never = [each for each in SCENARIOS if each.name not in {line.name for line in lines}]
    could_not = dict.fromkeys(
        f"{line.row}: {line.name} ({line.untried})" for line in lines if line.untried
    )
    no_result = (f"{each.row}: {each.name} (no result)" for each in never)
    untried = [*UNTRIED, *could_not, *no_result]
    lines = [line for line in lines if not line.untried]
    seeds = sorted({line.seed for line in lines})
    return _TEXT.format(
        seed=seeds[0] if seeds else 1,
        invariants="\n".join(f"| {name} | {_says(name)} |" for name in INVARIANTS),
        summary=_summary(lines, seeds),
        rows=_table(lines),
        broken=_list(_broken(lines)) or "Nothing was found in these runs.",
        untried=_list(untried),
    )


def _says(name: str) -> str:
    return (INVARIANTS[name].__doc__ or "").partition("\n")[0]


def _summary(lines: Sequence[Line], seeds: Sequence[int]) -> str:
    minutes = sum(line.seconds for line in lines) / 60
    names = len({line.name for line in lines})
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds from {min(seeds)} on"
    commits = sorted({line.commit for line in lines})
    of = f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"
    took = f"{minutes:.0f} minutes in all"
    return f"{len(lines)} runs of {names} scenarios, {took}, with {which}, of {of}."


def _table(lines: Iterable[Line]) -> str:
    by_name: defaultdict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        by_name[line.row, line.name].append(line)
    order = {(each.row, each.name): index for index, each in enumerate(SCENARIOS)}
    known = sorted((key for key in by_name if key in order), key=order.__getitem__)
    body = [_table_line(row, name, by_name[row, name]) for row, name in known]
    head = ["| fault | how | runs | checked | found |", "|---|---|---|---|---|"]
    return "\n".join([*head, *body])


def _table_line(row: str, name: str, lines: Sequence[Line]) -> str:
    bad = sum(bool(line.found) for line in lines)
    checked = lines[0].checks
    what = (
        f"{checked[0]} to {checked[-1]}" if len(checked) == len(INVARIANTS) else ", ".join(checked)
    )
    return f"| {row} | {name} | {len(lines)} | {what} | {f'{bad} of them' if bad else 'nothing'} |"


def _broken(lines: Iterable[Line]) -> list[str]:
    return [
        f"{line.row}: {line.name} (seed {line.seed}): {where}: {'; '.join(sentences)}"
        for line in lines
        for where, sentences in line.found.items()
    ]


def _list(points: Iterable[str]) -> str:
    return "\n".join(f"- {point}" for point in points)


if __name__ == "__main__":
    report()
