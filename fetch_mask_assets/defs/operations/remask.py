"""After a rotation: the job that brings old rows under the new key, and what must hold then."""

from collections.abc import Callable, Iterator, Mapping

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
from fetch_mask_assets.keys.keyset import FieldMasker
from fetch_mask_assets.operations.rotation.postgres import (
    Remasked,
    TokenTable,
    remask_field,
    unopened_tokens,
)
from fetch_mask_assets.operations.rotation.remasking import REMASK_RULES, RemaskFacts, RemaskRule
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready

REMASK_LOGINS = "remask_logins"
REMASKED_LOGINS = AssetKey("remasked_logins")

# A line in the log for about so many tokens; Dagster keeps each line.
_TOKENS_PER_LINE = 10_000


def recovery_database(environ: Mapping[str, str]) -> LoginDatabaseResource:
    """The warehouse as those reach it who may read tokens and replace them."""
    is_set = environ.get(settings.RECOVERY_DATABASE_URL, "").strip()
    name = settings.RECOVERY_DATABASE_URL if is_set else settings.DATABASE_URL
    return LoginDatabaseResource(url=EnvVar(name))


@asset(
    key=REMASKED_LOGINS,
    deps=[USER_LOGINS],
    description="user_logins with every token under the primary key. After a rotation it brings the"
    " old rows there, while ingestion goes on; a run that was stopped is simply started again.",
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
    """Re-masks field by field, and compares the groups of equal values before and after."""
    with redact_errors("re-masking"):
        keyring = masking_keys.keyring
        require_ready(recovery_database.database, keyring)
        table = TokenTable(recovery_database.url)
        done = [_remask(table, masker, context.log.info) for masker in keyring.maskers]
    facts = tuple(each for each, _ in done)
    metadata = {
        name: count for each, remasked in done for name, count in _counts(each, remasked).items()
    }
    yield MaterializeResult(metadata=metadata)
    for rule in REMASK_RULES:
        yield _result(rule, facts)


remask_logins = define_asset_job(
    REMASK_LOGINS,
    selection=AssetSelection.assets(REMASKED_LOGINS),
    description="After a rotation of keys: brings old rows under the new key, beside ingestion.",
    executor_def=in_process_executor,
)


def _remask(
    table: TokenTable, masker: FieldMasker, log: Callable[[str], None]
) -> tuple[RemaskFacts, Remasked]:
    name = masker.field.name
    before = table.groups(masker.field)
    log(f"{name}: {before.rows} rows, {before.groups.height} groups of equal values before")
    remasked = remask_field(table, masker, _telling(name, log))
    if remasked.unfinished:
        log(f"{name}: went on with {remasked.unfinished} that did not end; the audit has them")
    log(f"{name}: {_said(remasked)} in {remasked.passes} passes; now it is checked")
    facts = RemaskFacts(
        field=name,
        before=before,
        after=table.groups(masker.field),
        rows_left=table.rows_left(masker),
        unopened=unopened_tokens(table, masker),
    )
    return facts, remasked


def _telling(name: str, log: Callable[[str], None]) -> Callable[[Remasked], None]:
    """A call that logs progress, not too often."""
    told = 0

    def tell(done: Remasked) -> None:
        nonlocal told
        if done.tokens // _TOKENS_PER_LINE > told:
            told = done.tokens // _TOKENS_PER_LINE
            log(f"{name}: {_said(done)} so far")

    return tell


def _said(done: Remasked) -> str:
    return f"{done.tokens} tokens replaced in {done.rows} rows"


def _counts(facts: RemaskFacts, remasked: Remasked) -> dict[str, int]:
    counts = {
        "tokens_replaced": remasked.tokens,
        "rows_replaced": remasked.rows,
        "passes": remasked.passes,
        "rows_before": facts.before.rows,
        "rows_after": facts.after.rows,
        "groups_before": facts.before.groups.height,
        "groups_after": facts.after.groups.height,
        "loaded_meanwhile": facts.after.loaded - facts.before.loaded,
        "links": facts.after.links.height,
        "rows_left": facts.rows_left,
        **facts.unopened,
    }
    return {f"{facts.field}_{name}": count for name, count in counts.items()}


def _result(rule: RemaskRule, facts: tuple[RemaskFacts, ...]) -> AssetCheckResult:
    broken = {each.field: rule.count_broken(each) for each in facts}
    return AssetCheckResult(
        passed=not any(broken.values()),
        asset_key=REMASKED_LOGINS,
        check_name=rule.name,
        severity=AssetCheckSeverity.ERROR,
        description=rule.description if not any(broken.values()) else f"Broken: {rule.remedy}",
        metadata={f"{name}_broken": count for name, count in broken.items()},
    )
