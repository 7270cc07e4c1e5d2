"""The rules as asset checks: each rule gives its check the spec and the result."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import polars as pl
from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetIn,
    AssetKey,
    asset_check,
    multi_asset_check,
)

from fetch_mask_assets.defs.assets import MASKED_LOGINS, RAW_LOGIN_BATCH, USER_LOGINS
from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import (
    LoginDatabaseResource,
    WarningLimitsResource,
)
from fetch_mask_assets.pipeline.batch.checked_batch import CheckedBatch
from fetch_mask_assets.pipeline.batch.masked_batch import MaskingRule
from fetch_mask_assets.pipeline.batch.masking_rules import (
    MASKING_RULES,
    quarantined_violation_count,
)
from fetch_mask_assets.pipeline.batch.table_rules import TABLE_RULES, TableRule
from fetch_mask_assets.pipeline.batch.thresholds import MASKED_THRESHOLDS, RAW_THRESHOLDS, Threshold
from fetch_mask_assets.pipeline.contract.rejection import Reason
from fetch_mask_assets.settings import WarningLimits

_RAW = {"raw": AssetIn(RAW_LOGIN_BATCH)}
_MASKED = {"batch": AssetIn(MASKED_LOGINS)}


@multi_asset_check(
    name="masking_rules",
    specs=[
        AssetCheckSpec(
            rule.name,
            asset=MASKED_LOGINS,
            description=f"{rule.description} If not: {rule.remedy}",
            blocking=True,
            additional_deps=[RAW_LOGIN_BATCH],
        )
        for rule in MASKING_RULES
    ],
    ins=_MASKED,
)
def masking_rules(batch: CheckedBatch) -> Iterator[AssetCheckResult]:
    """Reports the verdict on the masked batch; a broken rule stops the run."""
    masked = batch.masked
    with redact_errors("checking the masked batch"):
        quarantined = [quarantined_violation_count(masked, rule) for rule in MASKING_RULES]
    for rule, rows in zip(MASKING_RULES, quarantined, strict=True):
        count = batch.broken.get(rule.name, 0)
        metadata = {"messages": masked.height, "quarantined_rows": rows}
        if rows and not count:
            yield _quarantined_result(rule, rows, metadata)
        else:
            yield _rule_result(rule, MASKED_LOGINS, count, metadata)


@multi_asset_check(
    name="table_rules",
    specs=[
        AssetCheckSpec(
            rule.name,
            asset=USER_LOGINS,
            description=f"{rule.description} If not: {rule.remedy}",
            blocking=rule.is_blocking,
            additional_deps=[RAW_LOGIN_BATCH],
        )
        for rule in TABLE_RULES
    ],
    ins=_RAW,
)
def table_rules(
    context: AssetCheckExecutionContext, raw: pl.DataFrame, login_database: LoginDatabaseResource
) -> Iterator[AssetCheckResult]:
    """Applies the table's rules to the database's counts."""
    with redact_errors("checking the table"):
        run_id = context.op_execution_context.run_id
        facts = login_database.database.table_facts(run_id, raw.height)
        counts = [rule.count_violations(facts) for rule in TABLE_RULES]
    for rule, count in zip(TABLE_RULES, counts, strict=True):
        yield _rule_result(rule, USER_LOGINS, count, {"received": facts.received})


_TOKENS_RULE = "Every masked column of user_logins holds a token or null, in the whole table."


@asset_check(
    asset=USER_LOGINS,
    name="every_token_is_well_formed",
    description=f"{_TOKENS_RULE} If not: another program wrote such rows. Their values can be"
    " recovered by every reader of the table: mask or remove them.",
)
def every_token_is_well_formed(login_database: LoginDatabaseResource) -> AssetCheckResult:
    """Examine the tokens of every row; the check of each batch does not."""
    with redact_errors("checking every token"):
        rows = login_database.database.non_token_rows()
    return AssetCheckResult(
        passed=rows == 0,
        description=f"Violations: {rows}." if rows else _TOKENS_RULE,
        metadata={"violations": rows},
    )


def _threshold_specs(key: AssetKey, thresholds: Iterable[Threshold]) -> list[AssetCheckSpec]:
    return [
        AssetCheckSpec(
            each.name,
            asset=key,
            description=f"{each.description} Its limit is the setting {each.setting}."
            f" If over it: {each.remedy}",
        )
        for each in thresholds
    ]


# One for each asset, so that a selection of one asset can leave out the checks of the other.
@multi_asset_check(
    name="raw_thresholds", specs=_threshold_specs(RAW_LOGIN_BATCH, RAW_THRESHOLDS), ins=_RAW
)
def raw_thresholds(
    raw: pl.DataFrame, warning_limits: WarningLimitsResource
) -> Iterator[AssetCheckResult]:
    """Warns if messages are older, or redelivered more often, than is normal."""
    yield from _threshold_results(RAW_LOGIN_BATCH, raw, RAW_THRESHOLDS, warning_limits.limits)


@multi_asset_check(
    name="masked_thresholds", specs=_threshold_specs(MASKED_LOGINS, MASKED_THRESHOLDS), ins=_MASKED
)
def masked_thresholds(
    batch: CheckedBatch, warning_limits: WarningLimitsResource
) -> Iterator[AssetCheckResult]:
    """Warns if more events are rejected, or have unparsed versions, than is normal."""
    yield from _threshold_results(
        MASKED_LOGINS, batch.masked, MASKED_THRESHOLDS, warning_limits.limits
    )


CHAIN_CHECKS = (raw_thresholds, masking_rules, masked_thresholds, table_rules)
"""The checks of each batch."""


def _rule_result(
    rule: MaskingRule | TableRule, key: AssetKey, count: int, metadata: dict[str, int]
) -> AssetCheckResult:
    return AssetCheckResult(
        passed=count == 0,
        asset_key=key,
        check_name=rule.name,
        severity=AssetCheckSeverity.ERROR,
        description=rule.description if count == 0 else f"Violations: {count}. {rule.remedy}",
        metadata={"violations": count, **metadata},
    )


def _quarantined_result(rule: MaskingRule, rows: int, metadata: dict[str, int]) -> AssetCheckResult:
    return AssetCheckResult(
        passed=False,
        asset_key=MASKED_LOGINS,
        check_name=rule.name,
        severity=AssetCheckSeverity.WARN,
        description=f"{rows} rows broke it and are quarantined, sealed, as"
        f" {Reason.BREAKS_MASKING_RULE.value}; the others keep it. A defect of the contract or the"
        " masking lets such rows through: report it. See docs/quarantine.md.",
        metadata={"violations": rows, **metadata},
    )


def _threshold_results(
    key: AssetKey, frame: pl.DataFrame, thresholds: Iterable[Threshold], limits: WarningLimits
) -> Iterator[AssetCheckResult]:
    now = datetime.now(UTC)
    for threshold in thresholds:
        with redact_errors("checking the thresholds"):
            value = threshold.value(frame, now)
        limit = threshold.limit(limits)
        yield AssetCheckResult(
            passed=value <= limit,
            asset_key=key,
            check_name=threshold.name,
            severity=AssetCheckSeverity.WARN,
            description=f"{threshold.description} {value:.1f}{threshold.unit}, normal up to"
            f" {limit:g}{threshold.unit} ({threshold.setting}).",
            metadata={"value": value, "limit": limit},
        )
