"""A part of the privacy report: where its facts come from, how they are judged and shown."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, LiteralString, NamedTuple, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WITHHELD = "(withheld)"
"""Replaces free text, which may hold anything."""

_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TICKET = re.compile(r"(?:[A-Z][A-Z0-9]{0,11}-?|#)[0-9]{1,7}")

_Row = TypeVar("_Row")
_Totals = TypeVar("_Totals", bound="DataclassInstance")


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
class Table:
    """A table of the page: cells by heading."""

    caption: str
    rows: Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Chart:
    """Stacked columns by day, one number a series; a table shows the same numbers."""

    label: str
    series: Sequence[str]
    days: Sequence[tuple[date, Sequence[int]]]


Block = str | Table | Chart


class Judgement(NamedTuple):
    """A condition, and the finding that is made if it is true."""

    is_met: bool
    severity: Severity
    description: str


def broken(condition: object, description: str) -> Judgement:
    """A judgement that makes the part not hold."""
    return Judgement(bool(condition), Severity.BROKEN, description)


def unreadable(condition: object, description: str) -> Judgement:
    """A judgement that something could not be read."""
    return Judgement(bool(condition), Severity.UNREADABLE, description)


def notice(condition: object, description: str) -> Judgement:
    """A judgement that something should be known."""
    return Judgement(bool(condition), Severity.NOTICE, description)


class Part(ABC):
    """The facts of one part. JSON has its fields; the page has its summary and its details."""

    name: ClassVar[str]
    title: ClassVar[str]
    promise: ClassVar[str]
    """One sentence that is true when the part holds."""
    about: ClassVar[str]
    """An explanation for a reader who does not know the product."""

    @abstractmethod
    def figure(self) -> str:
        """Return the numbers that matter most."""

    @abstractmethod
    def judgements(self) -> Iterable[Judgement]:
        """Return the conditions under which something does not hold, or should be known."""

    @abstractmethod
    def details(self) -> Iterable[Block]:
        """Return the texts, tables and charts behind the figure."""


class Source(Protocol):
    """A snapshot of the warehouse.

    Statements may name the parameters `since`, `until`, `keysets`, `quarantine_days` and
    `run_days`.
    """

    @property
    def reveals(self) -> Mapping[int, int] | None:
        """How often originals were revealed, by request; None if the audit is unreadable."""

    def rows(self, kind: type[_Row], statement: LiteralString) -> tuple[_Row, ...]:
        """Return a row as an object of `kind` for each, by the names of its columns."""

    def row(self, statement: LiteralString) -> tuple[Any, ...]:
        """Return the only row."""


class WarehousePart(Part):
    """A part that is read from the warehouse."""

    @classmethod
    @abstractmethod
    def read(cls, source: Source) -> Self:
        """Read the facts.

        Raises:
            psycopg.Error: refused, or the connection was lost.
        """


def values_of(record: DataclassInstance) -> dict[str, object]:
    """The fields of a record by name, then its properties."""
    names = [each.name for each in fields(record)]
    names += [name for name, each in vars(type(record)).items() if isinstance(each, property)]
    return {name: getattr(record, name) for name in names}


def table(caption: str, records: Iterable[DataclassInstance], *hidden: str) -> Iterator[Table]:
    """A table with a column for each value of the records; none if there are no records."""
    rows = [by_heading(each, *hidden) for each in records]
    if rows:
        yield Table(caption, rows)


def by_heading(record: DataclassInstance, *hidden: str) -> dict[str, object]:
    """The values of a record by heading, as cells of a table."""
    return {
        heading(name): str(value) if name.endswith("_id") else value
        for name, value in values_of(record).items()
        if name not in hidden
    }


def listing(caption: str, values: Mapping[str, object]) -> Table:
    """A table with a row for each named value."""
    return Table(caption, [{"": name, "Value": _text(value)} for name, value in values.items()])


def heading(name: str) -> str:
    """The name of a value in words: `already_known` is "Already known"."""
    return name.removeprefix("is_").replace("_", " ").capitalize()


def total(kind: type[_Totals], records: Iterable[DataclassInstance]) -> _Totals:
    """The sums of several records, for each field of `kind`."""
    given = list(records)
    return kind(**{
        each.name: sum(getattr(record, each.name) for record in given) for each in fields(kind)
    })  # fmt: skip


def shown_code(code: str | None) -> str:
    """A code as the product writes them; any other text is withheld."""
    return code if code and _CODE.fullmatch(code) else WITHHELD


def shown_ticket(ticket: str) -> str:
    """A reference to a ticket such as SEC-12; any other text is withheld, since it is free."""
    return ticket if _TICKET.fullmatch(ticket) else WITHHELD


def _text(value: object) -> object:
    return f"{value:,}" if isinstance(value, int) else value
