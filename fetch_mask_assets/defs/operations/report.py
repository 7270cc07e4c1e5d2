"""The privacy report as an asset: made each night, kept as files, and checked."""

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from dagster import (
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSelection,
    ConfigurableResource,
    DefaultScheduleStatus,
    Definitions,
    EnvVar,
    MaterializeResult,
    MetadataValue,
    ScheduleDefinition,
    asset,
    define_asset_job,
    in_process_executor,
)
from pydantic import Field

from fetch_mask_assets import settings
from fetch_mask_assets.defs.assets import OWNERS, UPKEEP_GROUP, USER_LOGINS
from fetch_mask_assets.defs.operations.check_history import read_checks
from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import LoginDatabaseResource
from fetch_mask_assets.errors import SettingError
from fetch_mask_assets.operations.report.files import ReportDirectory
from fetch_mask_assets.operations.report.md5_cost import measure_md5
from fetch_mask_assets.operations.report.page import render_json, render_page
from fetch_mask_assets.operations.report.postgres import ReportReader, RetentionDays
from fetch_mask_assets.operations.report.report import (
    ChecksPart,
    Finding,
    Period,
    Report,
    ReportProvenance,
    Severity,
    Unreadable,
    findings,
)
from fetch_mask_assets.postgres import migrate
from fetch_mask_assets.settings import Tuning

MAKE_REPORT = "make_privacy_report"
PRIVACY_REPORT = AssetKey("privacy_report")
REPORT_HOLDS = "report_holds"

_SAYS = "Every part of the report could be read, and everything in it holds."
_REMEDY = "Read the page: its head says what does not hold and what to do."
_MAX_FINDINGS = 10

REPORT_MEANINGS = {AssetCheckKey(PRIVACY_REPORT, REPORT_HOLDS): f"{_SAYS} If not: {_REMEDY}"}
"""What the report's own check means. No report is about it: one that does not hold would keep
later ones from holding."""


def make_report(
    reader: ReportReader,
    checks: ChecksPart | Unreadable,
    period: Period,
    *,
    at: datetime,
    expected_hash: bytes | None = None,
) -> Report:
    """A report of what is there now; a part that cannot be read is unreadable in it.

    Args:
        reader: reads the warehouse.
        checks: as `read_checks` gives them.
        period: what it is about.
        at: the present time.
        expected_hash: one that was noted earlier and must be in the audit.
    """
    facts = reader.facts(period, expected_hash)
    return Report(
        made=ReportProvenance(
            at=at,
            person=facts.person,
            product=version("fetch_mask_assets"),
            schema_needed=migrate.head(),
            schema=facts.schema,
            postgres=facts.postgres,
            dagster=version("dagster"),
            python=platform.python_version(),
        ),
        period=period,
        checks=checks,
        balance=facts.balance,
        keys=facts.keys,
        quarantine=facts.quarantine,
        erasures=facts.erasures,
        retention=facts.retention,
        requests=facts.requests,
        audit=facts.audit,
        strength=measure_md5(),
    )


class ReportSettingsResource(ConfigurableResource["ReportSettingsResource"]):
    """What a nightly report is about, and where it is kept."""

    directory: str = Field(description="Where reports are written; empty if none are to be.")
    days: int = Field(description="Days that a report is about.")
    keep: int = Field(description="Reports that are kept.")
    quarantine_days: int = Field(description="Days for which a quarantined message is kept.")
    run_days: int = Field(description="Days for which a finished run is kept.")

    @property
    def files(self) -> ReportDirectory:
        """Where reports are kept.

        Raises:
            SettingError: LOGIN_REPORTS_DIRECTORY is not set.
        """
        if not self.directory:
            raise SettingError(
                f"{settings.REPORTS_DIRECTORY} is not set: set it to the directory that reports are"
                " to be kept in."
            )
        return ReportDirectory(Path(self.directory), self.keep)

    @property
    def retention(self) -> RetentionDays:
        """For how long things are kept."""
        return RetentionDays(self.quarantine_days, self.run_days)


def report_settings(environ: Mapping[str, str], tuning: Tuning) -> ReportSettingsResource:
    """The settings of the reports, as the environment gives them."""
    return ReportSettingsResource(
        directory=settings.reports_directory(environ) or "",
        days=tuning.report_days,
        keep=tuning.reports_kept,
        quarantine_days=tuning.quarantine_retention_days,
        run_days=tuning.run_retention_days,
    )


def auditor_database(environ: Mapping[str, str]) -> LoginDatabaseResource:
    """The warehouse as whoever makes reports reaches it."""
    return LoginDatabaseResource(url=EnvVar(settings.auditor_setting(environ)))


def report_definitions(
    environ: Mapping[str, str], tuning: Tuning, meanings: Mapping[AssetCheckKey, str]
) -> Definitions:
    """The report as an asset, with its job, its schedule and what it reads.

    Args:
        environ: the environment.
        tuning: its numbers.
        meanings: the checks that the report is about, and what each means.
    """
    return Definitions(
        assets=[_privacy_report(meanings)],
        jobs=[make_privacy_report],
        schedules=[report_schedule(environ)],
        resources={
            "auditor_database": auditor_database(environ),
            "report_settings": report_settings(environ, tuning),
        },
    )


def _privacy_report(meanings: Mapping[AssetCheckKey, str]) -> AssetsDefinition:
    @asset(
        key=PRIVACY_REPORT,
        deps=[USER_LOGINS],
        description="What was checked, the balance, the keys, erasures, unmaskings and the audit,"
        " as one page to read and file, and as JSON. Made each night if LOGIN_REPORTS_DIRECTORY is"
        " set.",
        group_name=UPKEEP_GROUP,
        owners=OWNERS,
        kinds={"html", "json"},
        check_specs=[
            AssetCheckSpec(key.name, asset=key.asset_key, description=description)
            for key, description in REPORT_MEANINGS.items()
        ],
    )
    def privacy_report(
        context: AssetExecutionContext,
        auditor_database: LoginDatabaseResource,
        report_settings: ReportSettingsResource,
    ) -> Iterator[MaterializeResult[None] | AssetCheckResult]:
        """Makes the report, files it, and says whether everything in it holds."""
        with redact_errors("making the privacy report"):
            files = report_settings.files
            now = datetime.now(UTC)
            period = Period(now - timedelta(days=report_settings.days), now)
            checks = read_checks(context.instance, meanings, period)
            report = make_report(
                ReportReader(auditor_database.url, report_settings.retention),
                checks,
                period,
                at=now,
                expected_hash=noted_hash(files.newest("json")),
            )
            page, data = files.write(
                now, {"html": render_page(report), "json": render_json(report)}
            )
        yield from _results(Verdict.of(report), page, data)

    return privacy_report


def _results(
    found: "Verdict", page: Path, data: Path
) -> Iterator[MaterializeResult[None] | AssetCheckResult]:
    yield MaterializeResult(
        metadata={
            "holds": found.holds,
            "broken": found.broken,
            "unreadable": found.unreadable,
            "to_know": found.to_know,
            "page": MetadataValue.path(str(page)),
            "data": MetadataValue.path(str(data)),
        }
    )
    yield AssetCheckResult(
        passed=found.holds,
        asset_key=PRIVACY_REPORT,
        check_name=REPORT_HOLDS,
        severity=AssetCheckSeverity.ERROR,
        description=_SAYS if found.holds else f"{found.said} {_REMEDY}",
        metadata={"broken": found.broken, "unreadable": found.unreadable},
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many findings of each weight a report has, and what those say that matter."""

    broken: int
    unreadable: int
    to_know: int
    said: str

    @classmethod
    def of(cls, report: Report) -> "Verdict":
        """The verdict on a report."""
        found = findings(report)
        grave = [each for each in found if each.severity is not Severity.NOTICE]
        unreadable = sum(each.severity is Severity.UNREADABLE for each in grave)
        said = " ".join(map(_sentence, grave[:_MAX_FINDINGS]))
        return cls(len(grave) - unreadable, unreadable, len(found) - len(grave), said)

    @property
    def holds(self) -> bool:
        """Whether nothing is broken or unreadable."""
        return not self.broken and not self.unreadable


def _sentence(finding: Finding) -> str:
    return f"[{finding.part}, {finding.severity}] {finding.description}"


def noted_hash(earlier: str | None) -> bytes | None:
    """The last hash of the audit in an earlier report's JSON, or None if it has none.

    With it the next report sees rows that were cut off at the audit's end since.
    """
    if earlier is None:
        return None
    try:
        return bytes.fromhex(json.loads(earlier)["audit"]["chain"]["last_hash"]) or None
    except (ValueError, KeyError, TypeError):
        return None


make_privacy_report = define_asset_job(
    MAKE_REPORT,
    selection=AssetSelection.assets(PRIVACY_REPORT),
    description="Makes the privacy report and files it.",
    executor_def=in_process_executor,
    tags={"dagster/max_runtime": "3600"},
)


def report_schedule(environ: Mapping[str, str]) -> ScheduleDefinition:
    """The schedule that makes a report each night; on where there is a directory to keep it in."""
    is_on = settings.reports_directory(environ) is not None
    return ScheduleDefinition(
        name="privacy_report_nightly",
        job=make_privacy_report,
        cron_schedule="37 4 * * *",
        default_status=DefaultScheduleStatus.RUNNING if is_on else DefaultScheduleStatus.STOPPED,
        description="Makes the privacy report."
        + ("" if is_on else f" Off, because {settings.REPORTS_DIRECTORY} is not set."),
    )
