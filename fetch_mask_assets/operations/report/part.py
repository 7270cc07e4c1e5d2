"""The declaration of a part of the report: its facts, findings, JSON and page follow from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from string import Formatter
from typing import Any, LiteralString

Facts = Mapping[str, Any]
"""The facts of a part by name: each is a record (a mapping) or a table (a sequence of mappings)."""

WITHHELD = "(withheld)"
"""Replaces free text, which may hold anything."""

_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TICKET = re.compile(r"(?:[A-Z][A-Z0-9]{0,11}-?|#)[0-9]{1,7}")


class Severity(StrEnum):
    """The weight of a finding, the gravest first."""

    BROKEN = "broken"
    UNREADABLE = "unreadable"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` up to and without `until`, in UTC."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The reason why a part, or a fact, could not be read."""

    unreadable: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact that a reader must know first, and the part that it belongs to."""

    part: str
    severity: Severity
    description: str


class _CountFormatter(Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:  # noqa: ANN401 (as Formatter)
        one, _, many = format_spec.partition("|")
        if many:
            return f"{value:,} {one if value == 1 else many}"
        return str(super().format_field(value, format_spec))


def format_counts(text: str, facts: Facts) -> str:
    """Format a text; `{failed:time|times}` is a count with its noun: `1 time`, `2 times`."""
    return _CountFormatter().vformat(text, (), facts)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A condition, and the finding that is made if it is true.

    Both apply to all facts of a part, or to each row of `table`; `description` is a text for
    `format_counts`.
    """

    severity: Severity
    condition: Callable[[Facts], object]
    description: str
    table: str = ""

    def findings(self, part: str, facts: Facts) -> Iterator[Finding]:
        """The findings in the facts of a part."""
        for record in facts[self.table] if self.table else (facts,):
            if self.condition(record):
                yield Finding(part, self.severity, format_counts(self.description, record))


@dataclass(frozen=True, slots=True)
class Part:
    """The declaration of a part.

    `promise` is true when the part holds; `figure` is a text for `format_counts`, with the numbers
    that matter most. `records` and `tables` are statements by the name of the fact: a record has
    one row. They may use the parameters of `ReportReader`; their columns are the keys of the JSON
    and, in words, the headings of the page.
    """

    name: str
    title: str
    promise: str
    about: str
    figure: str
    judgements: tuple[Judgement, ...] = ()
    records: Mapping[str, LiteralString] = field(default_factory=dict)
    tables: Mapping[str, LiteralString] = field(default_factory=dict)

    def findings(self, facts: Facts | Unreadable) -> Iterator[Finding]:
        """The findings in the facts of this part."""
        if isinstance(facts, Unreadable):
            yield Finding(self.name, Severity.UNREADABLE, facts.unreadable)
            return
        for each in self.judgements:
            yield from each.findings(self.name, facts)


def shown_code(code: str | None) -> str:
    """A code as the product writes them; any other text is withheld."""
    return code if code and _CODE.fullmatch(code) else WITHHELD


def shown_ticket(ticket: str) -> str:
    """A reference to a ticket such as SEC-12; any other text is withheld, since it is free."""
    return ticket if _TICKET.fullmatch(ticket) else WITHHELD
