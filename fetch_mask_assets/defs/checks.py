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
    multi_asset_check,
)

from fetch_mask_assets.defs.assets import MASKED_LOGINS, RAW_LOGIN_BATCH, USER_LOGINS
from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import (
    LoginDatabaseResource,
    MaskingKeysResource,
    WarningLimitsResource,
)
from fetch_mask_assets.pipeline.batch.masked_batch import MaskingRule
from fetch_mask_assets.pipeline.batch.masking_rules import (
    MASKING_RULES,
    quarantined_violation_count,
)
from fetch_mask_assets.pipeline.batch.table_rules import TABLE_RULES, TableFacts, TableRule
from fetch_mask_assets.pipeline.batch.thresholds import MASKED_THRESHOLDS, RAW_THRESHOLDS, Threshold
from fetch_mask_assets.pipeline.contract.rejection import Reason

_RAW = {"raw": AssetIn(RAW_LOGIN_BATCH)}
_MASKED = {"masked": AssetIn(MASKED_LOGINS)}


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
    ins=_RAW | _MASKED,
)
def masking_rules(
    raw: pl.DataFrame, masked: pl.DataFrame, masking_keys: MaskingKeysResource
) -> Iterator[AssetCheckResult]:
    """Whether the masked batch keeps every masking rule; a broken one stops the run."""
    with redact_errors("checking the masked batch"):
        batch = masking_keys.batch(raw, masked)
        counts = [rule.count_broken(batch) for rule in MASKING_RULES]
        aside = [quarantined_violation_count(masked, rule) for rule in MASKING_RULES]
    for rule, count, lines in zip(MASKING_RULES, counts, aside, strict=True):
        metadata = {"messages": masked.height, "quarantine_violations": lines}
        if lines and not count:
            yield _quarantined_result(rule, lines, metadata)
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
    """Whether the table keeps its rules, by the database's own counts."""
    with redact_errors("checking the table"):
        facts = TableFacts(
            received=raw.height,
            counts=login_database.database.batch_counts(context.op_execution_context.run_id),
            rows_without_tokens=login_database.database.rows_without_tokens(),
        )
        counts = [rule.count_broken(facts) for rule in TABLE_RULES]
    for rule, count in zip(TABLE_RULES, counts, strict=True):
        yield _rule_result(rule, USER_LOGINS, count, {"received": facts.received})


def _threshold_specs(key: AssetKey, measures: Iterable[Threshold]) -> list[AssetCheckSpec]:
    return [
        AssetCheckSpec(
            measure.name,
            asset=key,
            description=f"{measure.description} Its limit is the setting {measure.setting}."
            f" If over it: {measure.remedy}",
        )
        for measure in measures
    ]


# One for each asset: a check over both could not be left out where only one is selected.
@multi_asset_check(
    name="raw_thresholds", specs=_threshold_specs(RAW_LOGIN_BATCH, RAW_THRESHOLDS), ins=_RAW
)
def raw_thresholds(
    raw: pl.DataFrame, warning_limits: WarningLimitsResource
) -> Iterator[AssetCheckResult]:
    """Whether the messages are as fresh as usual; warns if not."""
    yield from _measured(RAW_LOGIN_BATCH, raw, RAW_THRESHOLDS, warning_limits)


@multi_asset_check(
    name="masked_thresholds", specs=_threshold_specs(MASKED_LOGINS, MASKED_THRESHOLDS), ins=_MASKED
)
def masked_thresholds(
    masked: pl.DataFrame, warning_limits: WarningLimitsResource
) -> Iterator[AssetCheckResult]:
    """Whether the events are as well formed as usual; warns if not."""
    yield from _measured(MASKED_LOGINS, masked, MASKED_THRESHOLDS, warning_limits)


def _rule_result(
    rule: MaskingRule | TableRule, key: AssetKey, count: int, metadata: dict[str, int]
) -> AssetCheckResult:
    return AssetCheckResult(
        passed=count == 0,
        asset_key=key,
        check_name=rule.name,
        severity=AssetCheckSeverity.ERROR,
        description=rule.description if count == 0 else f"Broken {count} times. {rule.remedy}",
        metadata={"broken": count, **metadata},
    )


def _quarantined_result(
    rule: MaskingRule, lines: int, metadata: dict[str, int]
) -> AssetCheckResult:
    return AssetCheckResult(
        passed=False,
        asset_key=MASKED_LOGINS,
        check_name=rule.name,
        severity=AssetCheckSeverity.WARN,
        description=f"{lines} lines broke it and are quarantined, sealed, as"
        f" {Reason.BREAKS_MASKING_RULE.value}; the others keep it. A defect of the contract or the"
        " masking lets such lines through: report it. docs/quarantine.md says more.",
        metadata={"broken": lines, **metadata},
    )


def _measured(
    key: AssetKey,
    frame: pl.DataFrame,
    measures: Iterable[Threshold],
    warning_limits: WarningLimitsResource,
) -> Iterator[AssetCheckResult]:
    now = datetime.now(UTC)
    for measure in measures:
        with redact_errors("measuring the batch"):
            value = measure.value(frame, now)
        limit = measure.limit(warning_limits.limits)
        yield AssetCheckResult(
            passed=value <= limit,
            asset_key=key,
            check_name=measure.name,
            severity=AssetCheckSeverity.WARN,
            description=f"{measure.description} {value:.1f}{measure.unit}, normal up to"
            f" {limit:g}{measure.unit} ({measure.setting}).",
            metadata={"value": value, "limit": limit},
        )
