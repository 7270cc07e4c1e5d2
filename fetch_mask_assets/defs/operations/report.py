"""The privacy report as an asset: made each night, kept as files, and checked."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
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
from fetch_mask_assets.operations.report.page import render_json, render_page
from fetch_mask_assets.operations.report.part import Finding, Period, Severity
from fetch_mask_assets.operations.report.postgres import ReportReader, RetentionDays
from fetch_mask_assets.operations.report.report import Report
from fetch_mask_assets.settings import Tuning

MAKE_REPORT = "make_privacy_report"
PRIVACY_REPORT = AssetKey("privacy_report")
REPORT_HOLDS = "report_holds"

_MEANING = "Every part of the report could be read, and everything in it holds."
_REMEDY = "Read the first page of the report: it lists what needs action."
_MAX_FAULTS = 10

REPORT_MEANINGS = {AssetCheckKey(PRIVACY_REPORT, REPORT_HOLDS): f"{_MEANING} If not: {_REMEDY}"}
"""The meaning of the check on the report. No report covers it: one report that does not hold would
keep later ones from holding."""


class ReportSettingsResource(ConfigurableResource["ReportSettingsResource"]):
    """The period of nightly reports, and the directory that they are kept in."""

    directory: str = Field(description="Directory of the reports; empty if none are made.")
    days: int = Field(description="Days that a report covers.")
    keep: int = Field(description="Reports that are kept.")
    quarantine_days: int = Field(description="Days that a quarantined message is kept.")
    run_days: int = Field(description="Days that a finished run is kept.")

    @property
    def files(self) -> ReportDirectory:
        """The directory of the reports.

        Raises:
            SettingError: LOGIN_REPORTS_DIRECTORY is not set.
        """
        if not self.directory:
            raise SettingError(
                f"{settings.REPORTS_DIRECTORY} is not set: set it to a directory for reports."
            )
        return ReportDirectory(Path(self.directory), self.keep)

    @property
    def retention(self) -> RetentionDays:
        """The retention settings."""
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
    """The warehouse, as the login of the auditor."""
    return LoginDatabaseResource(url=EnvVar(settings.auditor_setting(environ)))


def report_definitions(
    environ: Mapping[str, str], tuning: Tuning, meanings: Mapping[AssetCheckKey, str]
) -> Definitions:
    """The report as an asset, with its job, its schedule and its resources.

    Args:
        environ: the environment.
        tuning: its numbers.
        meanings: the checks that the report covers, with the meaning of each.
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
        description="Checks, balance, keys, quarantine, erasures, retention, unmaskings and the"
        " audit, as one page to read and file, and as JSON. Made each night if"
        " LOGIN_REPORTS_DIRECTORY is set.",
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
        """Makes the report, files it, and checks that everything in it holds."""
        with redact_errors("making the privacy report"):
            files = report_settings.files
            now = datetime.now(UTC)
            period = Period(now - timedelta(days=report_settings.days), now)
            report = ReportReader(auditor_database.url, report_settings.retention).read(
                period,
                read_checks(context.instance, meanings, period),
                at=now,
                expected_hash=last_hash(files.newest("json")),
            )
            page, data = files.write(
                now, {"html": render_page(report), "json": render_json(report)}
            )
        yield from _results(report, page, data)

    return privacy_report


def _results(
    report: Report, page: Path, data: Path
) -> Iterator[MaterializeResult[None] | AssetCheckResult]:
    counts = {each.value: report.count(each) for each in (Severity.BROKEN, Severity.UNREADABLE)}
    yield MaterializeResult(
        metadata={
            "holds": report.holds,
            **counts,
            "notices": report.count(Severity.NOTICE),
            "page": MetadataValue.path(str(page)),
            "data": MetadataValue.path(str(data)),
        }
    )
    faults = " ".join(map(_sentence, report.faults[:_MAX_FAULTS]))
    yield AssetCheckResult(
        passed=report.holds,
        asset_key=PRIVACY_REPORT,
        check_name=REPORT_HOLDS,
        severity=AssetCheckSeverity.ERROR,
        description=_MEANING if report.holds else f"{faults} {_REMEDY}",
        metadata=counts,
    )


def _sentence(finding: Finding) -> str:
    return f"[{finding.part}, {finding.severity}] {finding.description}"


def last_hash(earlier: str | None) -> bytes | None:
    """The last hash of the audit in an earlier report's JSON, or None if it has none.

    With it the next report finds whether rows were cut off at the audit's end since.
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
    """The schedule that makes a report each night; on if the directory is set."""
    is_on = settings.reports_directory(environ) is not None
    return ScheduleDefinition(
        name="privacy_report_nightly",
        job=make_privacy_report,
        cron_schedule="37 4 * * *",
        default_status=DefaultScheduleStatus.RUNNING if is_on else DefaultScheduleStatus.STOPPED,
        description="Makes the privacy report."
        + ("" if is_on else f" Off, because {settings.REPORTS_DIRECTORY} is not set."),
    )
