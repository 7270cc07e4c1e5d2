"""The re-masking of old rows after a rotation: its asset, checks and job."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetSelection,
    EnvVar,
    MaterializeResult,
    asset,
    define_asset_job,
    in_process_executor,
)

from fetch_mask_assets import settings
from fetch_mask_assets.defs.assets import OWNERS, UPKEEP_GROUP, USER_LOGINS
from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import LoginDatabaseResource, MaskingKeysResource
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.operations.rotation.postgres import TokenTable
from fetch_mask_assets.operations.rotation.remask_rules import (
    REMASK_RULES,
    FieldComparison,
    RemaskRule,
)
from fetch_mask_assets.operations.rotation.remask_run import (
    RemaskProgress,
    remask_field,
    unopened_tokens,
)
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready

REMASK_LOGINS = "remask_logins"
REMASKED_LOGINS = AssetKey("remasked_logins")

# Dagster stores each log message: one for about this many tokens.
_TOKENS_PER_MESSAGE = 10_000


def recovery_database(environ: Mapping[str, str]) -> LoginDatabaseResource:
    """Return the warehouse by the URL of a member of recovery, or the loader's if none is set."""
    is_set = environ.get(settings.RECOVERY_DATABASE_URL, "").strip()
    name = settings.RECOVERY_DATABASE_URL if is_set else settings.DATABASE_URL
    return LoginDatabaseResource(url=EnvVar(name))


@asset(
    key=REMASKED_LOGINS,
    deps=[USER_LOGINS],
    description="user_logins with every token under the primary key. Run it after a rotation;"
    " ingestion can continue meanwhile. After an interruption, run it again: it continues.",
    group_name=UPKEEP_GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    check_specs=[
        AssetCheckSpec(
            rule.name,
            asset=REMASKED_LOGINS,
            description=f"{rule.description} If not: {rule.remedy}",
        )
        for rule in REMASK_RULES
    ],
)
def remasked_logins(
    context: AssetExecutionContext,
    recovery_database: LoginDatabaseResource,
    masking_keys: MaskingKeysResource,
) -> Iterator[MaterializeResult[None] | AssetCheckResult]:
    """Re-mask each field, and compare its groups of equal values before and after."""
    with redact_errors("re-masking"):
        keyring = masking_keys.keyring
        require_ready(recovery_database.database, keyring)
        table = TokenTable(recovery_database.url)
        done = [_remask(table, masker, context.log.info) for masker in keyring.maskers]
    metadata = {
        name: count
        for compared, progress in done
        for name, count in _counts(compared, progress).items()
    }
    yield MaterializeResult(metadata=metadata)
    for rule in REMASK_RULES:
        yield _result(rule, [compared for compared, _ in done])


remask_logins = define_asset_job(
    REMASK_LOGINS,
    selection=AssetSelection.assets(REMASKED_LOGINS),
    description="Brings old rows under the new primary key after a rotation, during ingestion.",
    executor_def=in_process_executor,
)


def _remask(
    table: TokenTable, masker: FieldMasker, log: Callable[[str], None]
) -> tuple[FieldComparison, RemaskProgress]:
    name = masker.field.name
    before = table.snapshot(masker.field)
    log(f"{name}: {before.rows} rows, {before.groups.height} groups of equal values before")
    progress = remask_field(table, masker, _progress_logger(name, log))
    if progress.unfinished:
        log(f"{name}: resumed {progress.unfinished} interrupted re-maskings, see the audit")
    log(f"{name}: {_sentence(progress)} in {progress.passes} passes; checking the result")
    compared = FieldComparison(
        field=name,
        before=before,
        after=table.snapshot(masker.field),
        rows_left=table.rows_left(masker),
        unopened=unopened_tokens(table, masker),
    )
    return compared, progress


def _progress_logger(name: str, log: Callable[[str], None]) -> Callable[[RemaskProgress], None]:
    """Return a callback that logs the progress, once for every `_TOKENS_PER_MESSAGE`."""
    logged = 0

    def log_progress(progress: RemaskProgress) -> None:
        nonlocal logged
        if progress.tokens // _TOKENS_PER_MESSAGE > logged:
            logged = progress.tokens // _TOKENS_PER_MESSAGE
            log(f"{name}: {_sentence(progress)} so far")

    return log_progress


def _sentence(progress: RemaskProgress) -> str:
    return f"{progress.tokens} tokens replaced in {progress.rows} rows"


def _counts(compared: FieldComparison, progress: RemaskProgress) -> dict[str, int]:
    counts = {
        "tokens_replaced": progress.tokens,
        "rows_replaced": progress.rows,
        "passes": progress.passes,
        "rows_before": compared.before.rows,
        "rows_after": compared.after.rows,
        "groups_before": compared.before.groups.height,
        "groups_after": compared.after.groups.height,
        "rows_loaded_during_run": compared.loaded_during_run,
        "links": compared.after.links.height,
        "rows_left": compared.rows_left,
        **{f"unopened_{reason}": count for reason, count in compared.unopened.items()},
    }
    return {f"{compared.field}_{name}": count for name, count in counts.items()}


def _result(rule: RemaskRule, comparisons: Sequence[FieldComparison]) -> AssetCheckResult:
    broken = {each.field: rule.count_violations(each) for each in comparisons}
    return AssetCheckResult(
        passed=not any(broken.values()),
        asset_key=REMASKED_LOGINS,
        check_name=rule.name,
        severity=AssetCheckSeverity.ERROR,
        description=rule.description if not any(broken.values()) else f"Violated. {rule.remedy}",
        metadata={f"{name}_violations": count for name, count in broken.items()},
    )
