"""The texts of alerts: summary, impact and remedy. Names and counts, never a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

MAX_NAMED_RUNS = 5
"""An alert of one check names at most so many runs, and counts the others."""


class Severity(StrEnum):
    """The urgency of an alert."""

    ERROR = "error"
    WARNING = "warning"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `id` is the same each time it is sent, so that a receiver can drop repeats.

    `run_id` is the id of the batch, or empty if there is none; `at` is in seconds since 1970.
    """

    id: str
    severity: Severity
    run_id: str
    summary: str
    impact: str
    remedy: str
    at: float
    numbers: Mapping[str, int | float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Alert:
        """The alert of `as_dict`."""
        return cls(**{**parts, "severity": Severity(parts["severity"])})


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """A failed check: its asset, its run, its meaning, and the numbers that it reported."""

    asset: str
    name: str
    run_id: str
    is_warning: bool
    meaning: str
    numbers: Mapping[str, int | float]
    at: float


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A failed run; `takes_messages` if its job receives a batch."""

    run_id: str
    job: str
    takes_messages: bool
    at: float


@dataclass(frozen=True, slots=True)
class LoadFreshness:
    """The time since the last load, and the waiting messages; None if the queue is unreachable."""

    seconds: float
    limit_seconds: float
    waiting: int | None

    @property
    def is_stale(self) -> bool:
        """Whether nothing was loaded for too long while messages wait, or may wait."""
        return self.seconds > self.limit_seconds and self.waiting != 0


def check_failed(failures: Sequence[FailedCheck], committed: AbstractSet[bool | None]) -> Alert:
    """The alert for the failures of one check, newest first, with the id of the newest.

    Args:
        failures: one or more, all of the same check.
        committed: whether the batches of the first `MAX_NAMED_RUNS` are committed; None if the
            database is unreachable.
    """
    newest, count = failures[0], len(failures)
    is_warning = all(each.is_warning for each in failures)
    return Alert(
        id=f"check:{newest.asset}:{newest.name}:{newest.run_id}",
        severity=Severity.WARNING if is_warning else Severity.ERROR,
        run_id=newest.run_id,
        summary=f"The check {newest.name} of {newest.asset} failed in {_named(failures)}.",
        impact=_impact_on_batch(*committed) if count == 1 else _impact_on_batches(committed),
        remedy=newest.meaning,
        at=newest.at,
        numbers={**newest.numbers, "failures": count} if count > 1 else newest.numbers,
    )


def _named(failures: Sequence[FailedCheck]) -> str:
    names = [each.run_id for each in failures[:MAX_NAMED_RUNS]]
    if len(failures) == 1:
        return f"run {names[0]}"
    more = len(failures) - len(names)
    return f"{len(failures)} runs: {', '.join(names)}{f' and {more} more' if more else ''}"


def run_failed(run: FailedRun, *, is_committed: bool | None) -> Alert:
    """The alert for a failed run; `is_committed` is None if the database is unreachable."""
    return Alert(
        id=f"run:{run.run_id}",
        severity=Severity.ERROR,
        run_id=run.run_id,
        summary=f"The run {run.run_id} of {run.job} failed.",
        impact=_impact_on_batch(is_committed) if run.takes_messages else _NO_MESSAGES,
        remedy="Open the run in Dagster: its first failed step names the rule or the service,"
        " and what to do. Run `fetch-mask doctor`.",
        at=run.at,
    )


def table_is_stale(freshness: LoadFreshness, since: float) -> Alert:
    """The alert for a table that is no longer loaded; `since` is the time of the last load."""
    waiting = (
        "the queue does not answer" if freshness.waiting is None else f"{freshness.waiting} wait"
    )
    return Alert(
        id=f"freshness:user_logins:{since:.0f}",
        severity=Severity.ERROR,
        run_id="",
        summary=f"Nothing was loaded into user_logins for {freshness.seconds / 60:.0f} minutes,"
        f" and messages: {waiting}.",
        impact="Nothing is lost: the messages are on the queue, until its retention ends.",
        remedy="Look at the ticks of the sensor login_queue_depth for the reason why no run was"
        " requested, then at the last runs of ingest_logins. Run `fetch-mask doctor`. The limit is"
        " LOGIN_FRESHNESS_SECONDS.",
        at=since + freshness.seconds,
        numbers={"seconds": freshness.seconds, "limit_seconds": freshness.limit_seconds}
        | ({} if freshness.waiting is None else {"waiting": freshness.waiting}),
    )


def make_test_alert(at: float) -> Alert:
    """An alert that tests the delivery."""
    return Alert(
        id=f"test:{at:.3f}",
        severity=Severity.TEST,
        run_id="",
        summary="This is a test alert.",
        impact="None: this is a test.",
        remedy="None.",
        at=at,
    )


_NO_MESSAGES = (
    "No message is lost: runs of this job take none from the queue. The run may be started again."
)


def _impact_on_batches(committed: AbstractSet[bool | None]) -> str:
    if committed == {True}:
        return (
            "The batches named here are committed, whole: rows, quarantine and ledger. Messages"
            " that were not deleted come back and are recognised."
        )
    return (
        "Each batch is committed whole or not at all. What is not committed is on the queue or goes"
        " back to it, and a later run takes it."
    )


def _impact_on_batch(is_committed: bool | None) -> str:  # noqa: FBT001 (a fact with three values)
    if is_committed:
        return (
            "The batch of this run is committed, whole: rows, quarantine and ledger. Messages that"
            " were not deleted come back and are recognised."
        )
    if is_committed is None:
        return (
            "The database is unreachable, so it is not known whether the batch is committed. It is"
            " committed whole or not at all, and what is not committed is on the queue or goes"
            " back to it."
        )
    return (
        "No batch of this run is committed. What it received is on the queue or goes back to it,"
        " and a later run takes it."
    )
