"""The settings, by their names in the environment.

Belongs here: names, defaults, bounds, and turning an environment into frozen values.
Does not belong here: reading `os.environ` (callers pass it in) or using a setting.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from fetch_mask_assets.errors import SettingError

QUEUE_URL = "LOGIN_QUEUE_URL"
DEAD_LETTER_QUEUE_URL = "LOGIN_DEAD_LETTER_QUEUE_URL"
DATABASE_URL = "LOGIN_DATABASE_URL"
RECOVERY_DATABASE_URL = "LOGIN_RECOVERY_DATABASE_URL"
ANALYST_DATABASE_URL = "LOGIN_ANALYST_DATABASE_URL"
AUDITOR_DATABASE_URL = "LOGIN_AUDITOR_DATABASE_URL"
REPORTS_DIRECTORY = "LOGIN_REPORTS_DIRECTORY"
KEYSETS = "MASKING_KEYSETS"
KMS_KEY = "MASKING_KMS_KEY"
ALERT_WEBHOOK = "LOGIN_ALERT_WEBHOOK"
ALERT_COMMAND = "LOGIN_ALERT_COMMAND"

REQUIRED: Mapping[str, str] = {
    QUEUE_URL: "the URL of the SQS queue that login events wait on",
    DATABASE_URL: "the libpq URL of the warehouse, postgresql://user:password@host/database",
    KEYSETS: "the directory of the masking keysets, or aws-secretsmanager://PREFIX",
}

# AWS: about 120,000 messages of a standard queue can be in flight at once.
IN_FLIGHT_LIMIT = 120_000


def _number(name: str, default: int, at_least: int, at_most: int, meaning: str) -> Any:  # noqa: ANN401 (as dataclasses.field)
    bounds = {"name": name, "at_least": at_least, "at_most": at_most, "meaning": meaning}
    return field(default=default, metadata=bounds)


@dataclass(frozen=True, kw_only=True)
class QueueTuning:
    """The numbers by which the login queue is read."""

    batch_messages: int = _number(
        "LOGIN_BATCH_MESSAGES", 10_000, 1, 100_000, "maximum number of messages in one batch"
    )
    batch_bytes: int = _number(
        "LOGIN_BATCH_BYTES",
        64 * 2**20,
        2**20,
        2**30,
        "maximum number of bytes of message bodies in one batch",
    )
    batch_seconds: int = _number(
        "LOGIN_BATCH_SECONDS", 30, 1, 3_600, "seconds after which a batch stops receiving"
    )
    receivers: int = _number("LOGIN_RECEIVERS", 4, 1, 32, "parallel receive calls")
    wait_seconds: int = _number("LOGIN_RECEIVE_WAIT_SECONDS", 2, 1, 20, "seconds of one long poll")
    empty_receives: int = _number(
        "LOGIN_MAX_EMPTY_RECEIVES",
        4,
        2,
        100,
        "empty receives in a row after which the queue counts as dry",
    )
    visibility_seconds: int = _number(
        "LOGIN_VISIBILITY_SECONDS",
        300,
        10,
        43_200,
        "visibility timeout of a received message, in seconds",
    )
    max_runs: int = _number("LOGIN_MAX_RUNS", 4, 1, 1_000, "maximum of active runs")

    def checked(self) -> Self:
        """The same numbers.

        Raises:
            SettingError: two of them do not go together.
        """
        if self.batch_seconds + self.wait_seconds >= self.visibility_seconds:
            raise SettingError(
                "LOGIN_VISIBILITY_SECONDS must exceed LOGIN_BATCH_SECONDS plus"
                " LOGIN_RECEIVE_WAIT_SECONDS: otherwise messages come back before they are"
                " committed."
            )
        if self.batch_messages * self.max_runs > IN_FLIGHT_LIMIT:
            raise SettingError(
                f"LOGIN_BATCH_MESSAGES times LOGIN_MAX_RUNS must not exceed {IN_FLIGHT_LIMIT}:"
                " SQS hands out no more messages than that at once. Lower one of them."
            )
        return self


@dataclass(frozen=True, kw_only=True)
class WarningLimits:
    """The highest normal values of a batch; a check warns above them."""

    warn_rejected_percent: int = _number(
        "LOGIN_WARN_REJECTED_PERCENT",
        5,
        0,
        100,
        "highest normal share of rejected messages, in percent",
    )
    warn_unparsed_version_percent: int = _number(
        "LOGIN_WARN_UNPARSED_VERSION_PERCENT",
        5,
        0,
        100,
        "highest normal share of logins whose version cannot be parsed, in percent",
    )
    warn_redelivered_percent: int = _number(
        "LOGIN_WARN_REDELIVERED_PERCENT",
        10,
        0,
        100,
        "highest normal share of redelivered messages, in percent",
    )
    warn_oldest_age_seconds: int = _number(
        "LOGIN_WARN_OLDEST_AGE_SECONDS",
        3_600,
        1,
        1_209_600,
        "highest normal age of the oldest message, in seconds",
    )


@dataclass(frozen=True, kw_only=True)
class Tuning(WarningLimits, QueueTuning):
    """The numbers of a deployment. Each has a default, bounds and a name in the environment."""

    freshness_seconds: int = _number(
        "LOGIN_FRESHNESS_SECONDS",
        3_600,
        120,
        604_800,
        "seconds after which a table that was not loaded is stale",
    )
    run_retention_days: int = _number(
        "LOGIN_RUN_RETENTION_DAYS", 14, 1, 3_650, "days for which Dagster keeps a finished run"
    )
    max_recovery_values: int = _number(
        "LOGIN_MAX_RECOVERY_VALUES",
        100,
        1,
        10_000,
        "maximum number of values in one find, and of their tokens in one unmask request",
    )
    quarantine_retention_days: int = _number(
        "LOGIN_QUARANTINE_RETENTION_DAYS",
        90,
        1,
        3_650,
        "days for which a quarantined message is kept",
    )
    report_days: int = _number(
        "LOGIN_REPORT_DAYS", 30, 1, 3_650, "days that a privacy report covers"
    )
    reports_kept: int = _number(
        "LOGIN_REPORTS_KEPT", 90, 1, 10_000, "number of nightly privacy reports to keep"
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Tuning:
        """The numbers that are set, and the defaults of the others.

        Raises:
            SettingError: a number is malformed or out of its bounds, or two do not go together.
        """
        given = {
            each.name: _bounded(environ[each.metadata["name"]], each.metadata)
            for each in fields(cls)
            if environ.get(each.metadata["name"], "").strip()
        }
        return cls(**given).checked()


def numbers_of(tuning: Tuning, group: type[QueueTuning | WarningLimits]) -> dict[str, int]:
    """The numbers of one group, by name."""
    return {each.name: getattr(tuning, each.name) for each in fields(group)}


def setting_of(number: str) -> str:
    """The name in the environment of a number of `Tuning`.

    Raises:
        KeyError: `Tuning` has no such number.
    """
    name: str = {each.name: each.metadata["name"] for each in fields(Tuning)}[number]
    return name


def required(environ: Mapping[str, str], name: str) -> str:
    """The value of a required setting.

    Raises:
        SettingError: it is not set.
    """
    value = environ.get(name, "").strip()
    if not value:
        raise SettingError(f"{name} is not set: set it to {REQUIRED[name]}.")
    return value


def recovery_database_url(environ: Mapping[str, str]) -> str:
    """The URL of the warehouse with the recovery role; the loader's if it is not set.

    Raises:
        SettingError: neither is set.
    """
    return environ.get(RECOVERY_DATABASE_URL, "").strip() or required(environ, DATABASE_URL)


def dead_letter_queue_url(environ: Mapping[str, str]) -> str | None:
    """The URL of the dead-letter queue; None to read it from the login queue's redrive policy."""
    return environ.get(DEAD_LETTER_QUEUE_URL, "").strip() or None


def auditor_setting(environ: Mapping[str, str]) -> str:
    """The name of the setting with the URL for reports."""
    names = (AUDITOR_DATABASE_URL, RECOVERY_DATABASE_URL)
    return next((name for name in names if environ.get(name, "").strip()), DATABASE_URL)


def reports_directory(environ: Mapping[str, str]) -> str | None:
    """The directory of nightly reports; None if none are made."""
    return environ.get(REPORTS_DIRECTORY, "").strip() or None


def kms_key(environ: Mapping[str, str]) -> str | None:
    """The id, ARN or alias of the KMS key that wraps the keysets; None if they are not wrapped."""
    return environ.get(KMS_KEY, "").strip() or None


def alert_webhook(environ: Mapping[str, str]) -> str:
    """The URL that alerts are posted to; empty if none is set.

    Raises:
        SettingError: it is not an HTTP URL. It is a secret, and is not shown.
    """
    url = environ.get(ALERT_WEBHOOK, "").strip()
    if url and not url.lower().startswith(("http://", "https://")):
        raise SettingError(f"{ALERT_WEBHOOK} must start with http:// or https://: set it so.")
    return url


def alert_command(environ: Mapping[str, str]) -> str:
    """The command that reads each alert from standard input; empty if none is set.

    Raises:
        SettingError: its quotes do not match. It may hold secrets, and is not shown.
    """
    command = environ.get(ALERT_COMMAND, "").strip()
    try:
        shlex.split(command)
    except ValueError:
        raise SettingError(f"{ALERT_COMMAND} has a quote that is not closed: close it.") from None
    return command


def _bounded(text: str, bounds: Mapping[str, Any]) -> int:
    lowest, highest = bounds["at_least"], bounds["at_most"]
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if lowest <= number <= highest:
        return number
    raise SettingError(
        f"{bounds['name']} ({bounds['meaning']}) must be a whole number"
        f" from {lowest} to {highest}: set it so, or unset it."
    )
