"""The views that analysts query, as assets: their figures, and a check of each."""

from collections.abc import Iterator, Mapping

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    AssetsDefinition,
    AssetSelection,
    DefaultScheduleStatus,
    EnvVar,
    MaterializeResult,
    ScheduleDefinition,
    TableColumn,
    TableColumnDep,
    TableColumnLineage,
    TableSchema,
    asset,
    define_asset_job,
    in_process_executor,
)

from fetch_mask_assets import settings
from fetch_mask_assets.defs.assets import OWNERS, USER_LOGINS
from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import LoginDatabaseResource
from fetch_mask_assets.operations.analysis.postgres import view_and_table
from fetch_mask_assets.operations.analysis.views import (
    ANALYSIS_VIEWS,
    CHECK,
    AnalysisView,
    Figures,
    differing,
)

ANALYSIS_GROUP = "analysis"
ANALYSE_LOGINS = "analyse_logins"

_REMEDY = (
    "Do not use the view's numbers. Compare its definition (\\d+ in psql) with that of the"
    " migrations, and look for a link of login_ingest.token_link that leads to a token with a"
    " link of its own."
)


def analyst_database(environ: Mapping[str, str]) -> LoginDatabaseResource:
    """The warehouse, as the login of analysts."""
    is_set = environ.get(settings.ANALYST_DATABASE_URL, "").strip()
    name = settings.ANALYST_DATABASE_URL if is_set else settings.DATABASE_URL
    return LoginDatabaseResource(url=EnvVar(name))


def _asset_of(view: AnalysisView) -> AssetsDefinition:
    key = AssetKey(view.name)

    @asset(
        key=key,
        deps=[USER_LOGINS],
        description=f"{view.description} A view, so always up to date; materializing it records its"
        " figures and checks them.",
        group_name=ANALYSIS_GROUP,
        owners=OWNERS,
        kinds={"postgres", "view"},
        metadata={
            "dagster/column_schema": _columns(view),
            "dagster/table_name": f"login_ingest.{view.name}",
        },
        check_specs=[
            AssetCheckSpec(CHECK, asset=key, description=f"{view.rule} If not: {_REMEDY}")
        ],
    )
    def view_asset(
        analyst_database: LoginDatabaseResource,
    ) -> Iterator[MaterializeResult[None] | AssetCheckResult]:
        with redact_errors("analysing logins"):
            figures, counted = view_and_table(analyst_database.url, view.name)
        yield MaterializeResult(
            metadata={
                "dagster/row_count": figures["rows"],
                "dagster/column_lineage": _lineage(view),
                **figures,
            }
        )
        yield _result(view, figures, counted)

    return view_asset


def _result(view: AnalysisView, figures: Figures, counted: Figures) -> AssetCheckResult:
    wrong = differing(figures, counted)
    return AssetCheckResult(
        passed=not wrong,
        asset_key=AssetKey(view.name),
        check_name=CHECK,
        severity=AssetCheckSeverity.ERROR,
        description=f"Different: {', '.join(wrong)}. {_REMEDY}" if wrong else view.rule,
        metadata={
            "differing": len(wrong),
            **{f"counted_{name}": count for name, count in counted.items()},
        },
    )


def _columns(view: AnalysisView) -> TableSchema:
    return TableSchema(
        columns=[
            TableColumn(name=name, type=column.type, description=column.description)
            for name, column in view.columns.items()
        ]
    )


def _lineage(view: AnalysisView) -> TableColumnLineage:
    """Each column with its column of user_logins; a count of rows has none."""
    return TableColumnLineage(
        deps_by_column={
            name: [TableColumnDep(asset_key=USER_LOGINS, column_name=column.source)]
            for name, column in view.columns.items()
            if column.source
        }
    )


analysis_assets = [_asset_of(view) for view in ANALYSIS_VIEWS]

# A separate job: its cost grows with the table, and the cost of a batch must not.
analyse_logins = define_asset_job(
    ANALYSE_LOGINS,
    selection=AssetSelection.groups(ANALYSIS_GROUP),
    description="Records the figures of the views for analysts, and checks them against the table.",
    executor_def=in_process_executor,
)

analysis_schedule = ScheduleDefinition(
    name="analyse_logins_nightly",
    job=analyse_logins,
    cron_schedule="17 4 * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Records the figures of the views for analysts each night, and checks them.",
)
