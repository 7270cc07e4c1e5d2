"""The privacy report: its parts, its findings, and its JSON.

A part that could not be read is never empty or good instead. The report holds nothing raw and no
token: counts, ids of keys and batches, codes, and the names of the database's logins.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from importlib.metadata import version
from typing import Any

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.operations.report.part import (
    Facts,
    Finding,
    Period,
    Severity,
    Unreadable,
)
from fetch_mask_assets.operations.report.parts import PARTS

PROVENANCE = "provenance"


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
class ReportProvenance:
    """The maker of a report (`actor`: its session_user), the time, and the versions."""

    at: datetime
    actor: str | Unreadable
    schema: str | Unreadable | None
    schema_needed: str
    postgres: str | Unreadable
    product: str = version("fetch_mask_assets")
    dagster: str = version("dagster")
    python: str = platform.python_version()

    def findings(self) -> tuple[Finding, ...]:
        """The finding on the schema of the database, if there is one."""
        if isinstance(self.schema, Unreadable):
            return (Finding(PROVENANCE, Severity.UNREADABLE, self.schema.unreadable),)
        if self.schema == self.schema_needed:
            return ()
        description = (
            f"the database's schema is {self.schema or 'none'}, this release needs"
            f" {self.schema_needed}: run `fetch-mask migrate`."
        )
        return (Finding(PROVENANCE, Severity.BROKEN, description),)


@dataclass(frozen=True, slots=True)
class Report:
    """The facts of a report by part, in the order of the page."""

    period: Period
    provenance: ReportProvenance
    facts: Mapping[str, Facts | Unreadable]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that is broken, unreadable, or only to be known."""
        of_parts = (each for part in PARTS for each in part.findings(self.facts[part.name]))
        return (*self.provenance.findings(), *of_parts)

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
            "period": asdict(report.period),
            PROVENANCE: asdict(report.provenance),
            "verdicts": {name: report.verdict(name) for name in report.facts},
            "findings": [asdict(each) for each in report.findings],
            **report.facts,
            "not_protected": not_protected,
        }
    )
    return whole


def _plain(value: object) -> Any:  # noqa: ANN401 (whatever JSON holds)
    if isinstance(value, Unreadable):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, date) else value
