"""A billion events a day, on paper: `python -m benchmarks.on_paper RESULTS.json`.

Multiplies the measured figures of `python -m benchmarks --json` by the assumptions of prices.toml.
It assumes that costs grow with the messages alone; `python -m benchmarks.growth` measures that.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.document import write_section
from benchmarks.figures import ContenderResult, Round, StageResult, stage_named
from benchmarks.stages import JOB
from benchmarks.tables import number, table

PRICES = Path(__file__).with_name("prices.toml")
SECTION = "on paper"

_SECONDS_OF_DAY = 86_400
_HOURS_OF_MONTH = 730
_DAYS_OF_MONTH = 30
_MILLION = 1e6
_GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class Load:
    """The events, and how processes and the database are sized for them."""

    events_a_day: int
    peak_to_mean: float
    utilisation: float
    retention_days: int


@dataclass(frozen=True, slots=True)
class Dollars:
    """Prices. `sqs_million_requests` are pairs of a limit, in millions a month, and a price."""

    sqs_million_requests: Sequence[tuple[float, float]]
    vcpu_hour: float
    database_vcpu_hour: float
    database_gigabyte_month: float


@dataclass(frozen=True, slots=True)
class Bill:
    """The needs of a contender for the load, and their cost in a month."""

    requests_a_day: float
    cores: float
    database_cores: float
    gigabytes: float
    sqs: float
    processes: float
    database: float

    @property
    def total(self) -> float:
        """Dollars a month."""
        return self.sqs + self.processes + self.database


def bill(contender: ContenderResult, load: Load, dollars: Dollars) -> Bill:
    """The bill by the medians of a contender."""
    requests = load.events_a_day * _a_message(contender, lambda each: each.requests)
    cores = _cores(_a_message(contender, lambda each: each.cpu_seconds), load)
    database = _cores(_a_message(contender, lambda each: each.server_cpu_seconds), load)
    stored = _a_message(contender, lambda each: each.stored_bytes)
    gigabytes = stored * load.events_a_day * load.retention_days / _GIGABYTE
    return Bill(
        requests_a_day=requests,
        cores=cores,
        database_cores=database,
        gigabytes=gigabytes,
        sqs=sqs_dollars(requests * _DAYS_OF_MONTH / _MILLION, dollars.sqs_million_requests),
        processes=cores * _HOURS_OF_MONTH * dollars.vcpu_hour,
        database=database * _HOURS_OF_MONTH * dollars.database_vcpu_hour
        + gigabytes * dollars.database_gigabyte_month,
    )


def sqs_dollars(millions: float, tiers: Sequence[tuple[float, float]]) -> float:
    """The price of so many millions of requests in a month."""
    total, start = 0.0, 0.0
    for end, price in tiers:
        total += max(0.0, min(millions, end) - start) * price
        start = end
    return total


def bill_table(stage: StageResult, load: Load, dollars: Dollars) -> str:
    """The bills of the product and of its baseline, side by side."""
    contenders = stage.contenders[:2]
    bills = [bill(each, load, dollars) for each in contenders]
    rows = [[name, *(number(of(each)) for each in bills)] for name, of in _LINES]
    return table(["", *(each.name for each in contenders)], rows)


def read_prices(path: Path) -> tuple[Load, Dollars]:
    """The assumptions of a file."""
    given = tomllib.loads(path.read_text(encoding="utf-8"))
    return Load(**given["load"]), Dollars(**given["dollars"])


def _a_message(contender: ContenderResult, quantity: Callable[[Round], float]) -> float:
    return contender.spread(lambda each: quantity(each) / each.messages).median


def _cores(seconds_a_message: float, load: Load) -> float:
    mean = load.events_a_day * seconds_a_message / _SECONDS_OF_DAY
    return mean * load.peak_to_mean / load.utilisation


_LINES: tuple[tuple[str, Callable[[Bill], float]], ...] = (
    ("SQS requests a day, millions", lambda each: each.requests_a_day / _MILLION),
    ("cores for the processes", lambda each: each.cores),
    ("cores for Postgres", lambda each: each.database_cores),
    ("Postgres storage, GB", lambda each: each.gigabytes),
    ("SQS, dollars a month", lambda each: each.sqs),
    ("processes, dollars a month", lambda each: each.processes),
    ("Postgres, dollars a month", lambda each: each.database),
    ("together, dollars a month", lambda each: each.total),
)


@click.command()
@click.argument("results", type=click.Path(path_type=Path, exists=True))
@click.option("--prices", default=PRICES, type=Path, help="File of assumptions.")
@click.option("--write-docs", is_flag=True, help="Write the table into docs/performance.md.")
def main(results: Path, prices: Path, *, write_docs: bool) -> None:
    """Print what the load of prices.toml needs and costs, by measured figures."""
    stages = json.loads(results.read_text(encoding="utf-8"))["stages"]
    stage = stage_named([StageResult.from_json(each) for each in stages], JOB)
    if stage is None:
        raise click.ClickException(f"{results} holds no stage {JOB}: measure it first.")
    text = bill_table(stage, *read_prices(prices))
    click.echo(text)
    if write_docs:
        write_section(SECTION, text)


if __name__ == "__main__":
    main()
