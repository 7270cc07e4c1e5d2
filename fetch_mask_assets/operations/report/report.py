"""The privacy report: what was found, part by part, and what of it does not hold.

A part that could not be read says so, and is never empty or good instead. Nothing raw and no
token is in it: counts, ids of keys and batches, codes, and the names of the database's logins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, astuple, dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.operations.report.audit_summary import AuditSummary
from fetch_mask_assets.operations.report.check_history import CheckTally, Outcome

WITHHELD = "(withheld)"
"""Stands where a text is free, and so may hold anything."""

_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TICKET = re.compile(r"(?:[A-Z][A-Z0-9]{0,11}-?|#)[0-9]{1,7}")


class PeriodError(FetchMaskError):
    """A report's period is none."""


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` up to and without `until`, in UTC."""

    since: datetime
    until: datetime


def period_of(since: datetime | None, until: datetime | None, now: datetime, days: int) -> Period:
    """The period that was asked for; what is left out is `days` days that end now.

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
class Unreadable:
    """A part that could not be read, and why."""

    unreadable: str


@dataclass(frozen=True, slots=True)
class ReportProvenance:
    """Who made a report, when and with what; `person` is the database's session_user."""

    at: datetime
    person: str | Unreadable
    product: str
    schema_needed: str
    schema: str | Unreadable | None
    postgres: str | Unreadable
    dagster: str
    python: str


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch with its account and what the ledger holds of it, in messages."""

    batch_id: int
    run_id: str
    committed_at: datetime
    received: int
    loaded: int
    quarantined: int
    already_known: int
    ledger: int

    @property
    def holds(self) -> bool:
        """Whether its account adds up, and the ledger says the same."""
        new = self.loaded + self.quarantined
        return self.received == new + self.already_known and self.ledger == new


@dataclass(frozen=True, slots=True)
class BatchSum:
    """Several batches together; `unbalanced` of them do not hold."""

    batches: int = 0
    received: int = 0
    loaded: int = 0
    quarantined: int = 0
    already_known: int = 0
    ledger: int = 0
    unbalanced: int = 0


def summed(sums: Iterable[BatchSum]) -> BatchSum:
    """Several sums together."""
    columns = zip(*(astuple(each) for each in sums), strict=True)
    return BatchSum(*map(sum, columns))


@dataclass(frozen=True, slots=True)
class TableSum:
    """The rows of user_logins beside what the records say should be there.

    `erased` rows were deleted with their user.
    """

    rows: int
    loaded: int
    replayed: int
    erased: int
    without_ip: int
    without_device_id: int
    untokened: int

    @property
    def accounted(self) -> int:
        """The rows that the records explain."""
        return self.loaded + self.replayed - self.erased

    @property
    def missing(self) -> int:
        """Rows that are recorded and not there."""
        return max(0, self.accounted - self.rows)

    @property
    def foreign(self) -> int:
        """Rows that are there and not recorded."""
        return max(0, self.rows - self.accounted)


@dataclass(frozen=True, slots=True)
class BalancePart:
    """The balance: of all batches ever, of the period, by day, and of single batches.

    `batches` is each batch of the period where they are few, and empty where they are many;
    `unbalanced` is each that does not hold, of all ever, up to a limit. `ledger_rows` counts the
    whole ledger, lines without a batch record too.
    """

    whole: BatchSum
    in_period: BatchSum
    days: tuple[tuple[date, BatchSum], ...]
    batches: tuple[BatchRow, ...]
    unbalanced: tuple[BatchRow, ...]
    ledger_rows: int
    table: TableSum


@dataclass(frozen=True, slots=True)
class ReportedKey:
    """A key by its id; `rows` are tokens or sealed bodies under it. Never key material."""

    keyset: str
    key_id: int
    first_used_at: datetime | None
    retired_at: datetime | None
    rows: int

    @property
    def status(self) -> str:
        """What the key registry says of it."""
        if self.first_used_at is None:
            return "not registered"
        return "retired" if self.retired_at else "in use"


@dataclass(frozen=True, slots=True)
class LinkCount:
    """How many links of a field are kept, from tokens and from MD5 digests."""

    field: str
    tokens: int
    digests: int


@dataclass(frozen=True, slots=True)
class KeysPart:
    """The keys in use, and the links from old tokens to new ones."""

    keys: tuple[ReportedKey, ...]
    links: tuple[LinkCount, ...]


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How many messages wait in the quarantine for one reason."""

    field: str
    reason: str
    messages: int
    in_period: int


@dataclass(frozen=True, slots=True)
class QuarantinePart:
    """What waits in the quarantine by reason, and what became of all that was ever there."""

    reasons: tuple[ReasonCount, ...]
    quarantined: int
    replayed: int
    discarded: int
    expired: int
    erased: int
    waiting: int
    holds: bool


@dataclass(frozen=True, slots=True)
class ErasureRow:
    """A certificate of erasure, in numbers."""

    erasure_id: str
    at: datetime
    person: str
    kind: str
    subjects: int
    ticket: str
    logins: int
    links: int
    requests: int
    quarantined: int
    unopened: int
    remaining: int | None
    finished_at: datetime | None
    verified: bool


@dataclass(frozen=True, slots=True)
class ErasuresPart:
    """Erasures: how many ever, how many of them are not verified, and those to be shown."""

    ever: int
    unverified: int
    shown: tuple[ErasureRow, ...]


@dataclass(frozen=True, slots=True)
class RetentionPart:
    """What is deleted by age: the settings, and the oldest that is there."""

    quarantine_days: int
    run_days: int
    oldest_quarantined_at: datetime | None
    overdue: int
    last_expiry_at: datetime | None
    oldest_login_day: date | None


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request to unmask; `reveals` is None where the audit could not be read."""

    request_id: int
    requested_at: datetime
    requester: str
    ticket: str
    tokens: int
    approver: str | None
    expires_at: datetime | None
    state: str
    reveals: int | None = None


@dataclass(frozen=True, slots=True)
class RequestsPart:
    """Requests to unmask: how many ever, and those of the period up to a limit, newest first."""

    ever: int
    in_period: int
    shown: tuple[RequestRow, ...]


@dataclass(frozen=True, slots=True)
class Space:
    """A space of values, and how long one core takes to try each of them."""

    name: str
    values: int
    rate: float

    @property
    def seconds(self) -> float:
        """An extrapolation from the rate, in values a second, that was measured."""
        return self.values / self.rate


@dataclass(frozen=True, slots=True)
class StrengthPart:
    """How fast this machine reverses MD5: measured for `measured_seconds` on one core."""

    measured_seconds: float
    cores: int
    spaces: tuple[Space, ...]


@dataclass(frozen=True, slots=True)
class ChecksPart:
    """The asset checks, with what their history says of the period."""

    checks: tuple[CheckTally, ...]
    known_since: datetime | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a report says."""

    made: ReportProvenance
    period: Period
    checks: ChecksPart | Unreadable
    balance: BalancePart | Unreadable
    keys: KeysPart | Unreadable
    quarantine: QuarantinePart | Unreadable
    erasures: ErasuresPart | Unreadable
    retention: RetentionPart | Unreadable
    requests: RequestsPart | Unreadable
    audit: AuditSummary | Unreadable
    strength: StrengthPart | Unreadable


class Severity(StrEnum):
    """How much a finding weighs."""

    BROKEN = "does not hold"
    UNREADABLE = "could not be read"
    NOTICE = "to know"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a reader must know before the rest, and the part that it is of."""

    part: str
    severity: Severity
    description: str


PARTS = (
    "checks",
    "balance",
    "keys",
    "quarantine",
    "erasures",
    "retention",
    "requests",
    "audit",
    "strength",
)
"""The parts by their field's name, in the order of the page."""


def findings(report: Report) -> tuple[Finding, ...]:
    """What does not hold, what could not be read, and what is only to know."""
    return tuple(_findings(report))


def holds(report: Report) -> bool:
    """Whether every part was read and nothing in it is broken."""
    return all(each.severity is Severity.NOTICE for each in findings(report))


def as_json(report: Report, not_protected: str) -> dict[str, Any]:
    """The report as JSON takes it, with its findings; times are ISO 8601.

    Args:
        report: the report.
        not_protected: the text on what is not protected.
    """
    found = findings(report)
    parts: dict[str, Any] = _plain(asdict(report))
    return {
        "holds": holds(report),
        "findings": [_plain(asdict(each)) for each in found],
        **parts,
        "not_protected": not_protected,
    }


def shown_code(code: str | None) -> str:
    """A code as the product writes them; any other text is withheld."""
    return code if code and _CODE.fullmatch(code) else WITHHELD


def shown_ticket(ticket: str) -> str:
    """A reference to a ticket such as SEC-12; any other text is withheld, since it is free."""
    return ticket if _TICKET.fullmatch(ticket) else WITHHELD


def _plain(value: object) -> Any:  # noqa: ANN401 (whatever JSON holds)
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, date):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value


def _findings(report: Report) -> Iterator[Finding]:
    yield from _of_versions(report.made)
    for name in PARTS:
        part = getattr(report, name)
        if isinstance(part, Unreadable):
            yield Finding(name, Severity.UNREADABLE, part.unreadable)
        elif name in _OF_PART:
            for severity, description in _OF_PART[name](part):
                yield Finding(name, severity, description)


_Found = Iterator[tuple[Severity, str]]


def _of_versions(made: ReportProvenance) -> Iterator[Finding]:
    if isinstance(made.schema, Unreadable):
        yield Finding("made", Severity.UNREADABLE, made.schema.unreadable)
    elif made.schema != made.schema_needed:
        yield Finding(
            "made",
            Severity.BROKEN,
            f"the database's schema is {made.schema or 'none'}, this release needs"
            f" {made.schema_needed}: run `fetch-mask migrate`.",
        )


def _of_checks(part: ChecksPart) -> _Found:
    for check in part.checks:
        name, counts = f"{check.asset}: {check.name}", check.counts
        if counts.failed:
            yield Severity.BROKEN, f"{name} failed {counts.failed} times."
        if counts.warned:
            yield Severity.NOTICE, f"{name} warned {counts.warned} times."
        if counts.not_evaluated:
            severity = Severity.NOTICE if _was_evaluated_since(check) else Severity.BROKEN
            yield (
                severity,
                (
                    f"{name} was planned and not evaluated {counts.not_evaluated} times: the runs"
                    " failed or were stopped before it."
                ),
            )
        if check.is_cut:
            yield (
                Severity.UNREADABLE,
                f"{name}: the period holds more than was counted; shorten it.",
            )
        if not counts.total:
            yield Severity.NOTICE, f"{name} was never planned in the period."


def _was_evaluated_since(check: CheckTally) -> bool:
    return check.newest is not None and check.newest.outcome is not Outcome.NOT_EVALUATED


def _of_balance(part: BalancePart) -> _Found:
    whole, table = part.whole, part.table
    if whole.unbalanced:
        yield Severity.BROKEN, f"{whole.unbalanced} batches do not balance."
    recorded = whole.loaded + whole.quarantined
    if part.ledger_rows != recorded:
        yield (
            Severity.BROKEN,
            (f"the ledger holds {part.ledger_rows} message ids, the batches record {recorded}."),
        )
    if table.missing:
        yield (
            Severity.BROKEN,
            (
                f"user_logins lacks {table.missing} rows that the records say are there: somebody"
                " deleted them outside this product."
            ),
        )
    if table.foreign:
        yield (
            Severity.NOTICE,
            (
                f"{table.foreign} rows of user_logins are not of this product: they were there"
                " before, or somebody else wrote them."
            ),
        )
    if table.untokened:
        yield (
            Severity.BROKEN,
            (
                f"{table.untokened} rows of user_logins hold something else than tokens in a masked"
                " column: whoever reads them may read them back."
            ),
        )


def _of_keys(part: KeysPart) -> _Found:
    for key in part.keys:
        name = f"key {key.key_id} of {key.keyset}"
        if key.status == "not registered":
            yield Severity.BROKEN, f"{key.rows} rows are under {name}, which is not registered."
        elif key.retired_at and key.rows:
            yield Severity.NOTICE, f"{key.rows} rows are under {name}, which is retired."
    digests = sum(each.digests for each in part.links)
    if digests:
        yield (
            Severity.NOTICE,
            (
                f"{digests} links from MD5 digests are kept: whoever reads them can reverse them."
                " `fetch-mask upgrade-md5` says how to drop them."
            ),
        )


def _of_quarantine(part: QuarantinePart) -> _Found:
    if not part.holds:
        yield Severity.BROKEN, "the account of the quarantine does not add up."


def _of_erasures(part: ErasuresPart) -> _Found:
    if part.unverified:
        yield (
            Severity.BROKEN,
            (
                f"{part.unverified} erasures are unfinished, or found something that could not be"
                " erased: repeat them."
            ),
        )


def _of_retention(part: RetentionPart) -> _Found:
    if part.overdue:
        yield (
            Severity.BROKEN,
            (
                f"{part.overdue} quarantined messages are more than a day older than the"
                f" {part.quarantine_days} days for which they may be kept: is the schedule on?"
            ),
        )


def _of_audit(part: AuditSummary) -> _Found:
    broken = part.chain.broken
    if broken:
        yield (
            Severity.BROKEN,
            f"the audit is broken at row {broken.audit_id}: {broken.reason}.",
        )
    if not part.chain.has_expected:
        yield (
            Severity.BROKEN,
            (
                "the hash that was noted earlier is not in the audit: rows were cut off at its end,"
                " or the chain was computed anew."
            ),
        )
    refused = sum(each.times for each in part.actions if each.is_refusal)
    if refused:
        yield Severity.NOTICE, f"{refused} steps of unmasking were refused in the period."


_OF_PART: dict[str, Callable[[Any], _Found]] = {
    "checks": _of_checks,
    "balance": _of_balance,
    "keys": _of_keys,
    "quarantine": _of_quarantine,
    "erasures": _of_erasures,
    "retention": _of_retention,
    "audit": _of_audit,
}
