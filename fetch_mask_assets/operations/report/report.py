"""The privacy report: its parts, its findings, and its JSON.

A part that could not be read is never empty or good instead. The report holds nothing raw and no
token: counts, ids of keys and batches, codes, and the names of the database's logins.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from datetime import date, datetime, timedelta
from importlib.metadata import version
from typing import Any, TypeVar, cast

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.operations.report.part import (
    Part,
    Period,
    Severity,
    Unreadable,
    values_of,
)

PROVENANCE = "provenance"

_Part = TypeVar("_Part", bound=Part)


class PeriodError(FetchMaskError):
    """The period of a report is empty, reversed, or in the future."""


def period_of(since: datetime | None, until: datetime | None, now: datetime, days: int) -> Period:
    """The given period; by default `days` days that end now.

    Raises:
        PeriodError: it ends before it begins, or in the future.
    """
    end = until or now
    begin = since or end - timedelta(days=days)
    if not begin < end <= now:
        raise PeriodError(
            "the period of a report begins before it ends and ends no later than now: mend --since"
            " and --until (UTC)."
        )
    return Period(begin, end)


@dataclass(frozen=True, slots=True)
class Server:
    """The database as the reader of a report finds it; `actor` is its session_user."""

    actor: str | Unreadable
    schema: str | Unreadable | None
    postgres: str | Unreadable


@dataclass(frozen=True, slots=True)
class ReportProvenance(Server):
    """Who made a report, when, and with which versions."""

    at: datetime
    schema_needed: str
    product: str
    dagster: str
    python: str

    @classmethod
    def of(cls, server: Server, at: datetime, schema_needed: str) -> ReportProvenance:
        """The provenance of a report that this process makes."""
        return cls(
            actor=server.actor,
            schema=server.schema,
            postgres=server.postgres,
            at=at,
            schema_needed=schema_needed,
            product=version("fetch_mask_assets"),
            dagster=version("dagster"),
            python=platform.python_version(),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact that a reader must know first, and the part that it belongs to."""

    part: str
    severity: Severity
    description: str


@dataclass(frozen=True, slots=True)
class Report:
    """The parts of a report by name, in the order of the page."""

    period: Period
    provenance: ReportProvenance
    parts: Mapping[str, Part | Unreadable]

    def part(self, kind: type[_Part]) -> _Part | Unreadable:
        """The part of a kind."""
        return cast("_Part | Unreadable", self.parts[kind.name])

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that is broken, unreadable, or only to be known."""
        return (
            *_findings_of_schema(self.provenance),
            *(each for name, part in self.parts.items() for each in _findings_of(name, part)),
        )

    @property
    def holds(self) -> bool:
        """Whether every part was read and nothing in it is broken."""
        return not self.faults

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings because of which the report does not hold."""
        return tuple(each for each in self.findings if each.severity is not Severity.NOTICE)

    def count(self, severity: Severity) -> int:
        """The number of findings of a severity."""
        return sum(each.severity is severity for each in self.findings)

    def verdict(self, name: str) -> str:
        """The verdict on a part: "holds", or its gravest severity."""
        severities = {each.severity for each in self.faults if each.part == name}
        return next((each.value for each in Severity if each in severities), "holds")


def as_json(report: Report, not_protected: str) -> dict[str, Any]:
    """The report as JSON takes it, with its findings; times are ISO 8601.

    Args:
        report: the report.
        not_protected: the text on what is not protected.
    """
    whole: dict[str, Any] = _plain(
        {
            "holds": report.holds,
            "period": report.period,
            PROVENANCE: report.provenance,
            "verdicts": {name: report.verdict(name) for name in report.parts},
            "findings": report.findings,
            **report.parts,
            "not_protected": not_protected,
        }
    )
    return whole


def _plain(value: object) -> Any:  # noqa: ANN401 (whatever JSON holds)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(values_of(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, date):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value


def _findings_of(name: str, part: Part | Unreadable) -> Iterator[Finding]:
    if isinstance(part, Unreadable):
        yield Finding(name, Severity.UNREADABLE, part.unreadable)
        return
    for each in part.judgements():
        if each.is_met:
            yield Finding(name, each.severity, each.description)


def _findings_of_schema(made: ReportProvenance) -> Iterator[Finding]:
    if isinstance(made.schema, Unreadable):
        yield Finding(PROVENANCE, Severity.UNREADABLE, made.schema.unreadable)
    elif made.schema != made.schema_needed:
        yield Finding(
            PROVENANCE,
            Severity.BROKEN,
            f"the database's schema is {made.schema or 'none'}, this release needs"
            f" {made.schema_needed}: run `fetch-mask migrate`.",
        )
