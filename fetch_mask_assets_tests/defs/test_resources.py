"""The numbers of a resource: from the environment, and other ones for a single run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    DagsterInvalidConfigError,
    ExecuteInProcessResult,
    asset,
    materialize,
)

from fetch_mask_assets.definitions import build_definitions
from fetch_mask_assets.defs.resources import LoginQueueResource, WarningLimitsResource
from fetch_mask_assets.errors import SettingError
from fetch_mask_assets.settings import QueueTuning, WarningLimits

ENVIRONMENT = {"LOGIN_WARN_OLDEST_AGE_SECONDS": "7", "LOGIN_BATCH_MESSAGES": "12"}


def _run(
    seen: list[WarningLimits], numbers: dict[str, int] | None = None
) -> ExecuteInProcessResult:
    @asset
    def limits_of_the_run(warning_limits: WarningLimitsResource) -> None:
        seen.append(warning_limits.limits)

    resources: Any = build_definitions(ENVIRONMENT).resources
    with DagsterInstance.ephemeral() as instance:
        return materialize(
            [limits_of_the_run],
            instance=instance,
            raise_on_error=False,
            resources={"warning_limits": resources["warning_limits"]},
            run_config={"resources": {"warning_limits": {"config": numbers}}} if numbers else None,
        )


def test_a_run_has_the_numbers_of_the_environment() -> None:
    seen: list[WarningLimits] = []

    assert _run(seen).success
    assert seen == [WarningLimits(warn_oldest_age_seconds=7)]


def test_a_run_can_be_started_with_other_numbers() -> None:
    seen: list[WarningLimits] = []
    limits = WarningLimits(warn_rejected_percent=50, warn_oldest_age_seconds=9)

    assert _run(seen, asdict(limits)).success
    assert seen == [limits]


def test_a_run_that_is_configured_in_part_is_refused() -> None:
    with pytest.raises(DagsterInvalidConfigError, match="warn_oldest_age_seconds"):
        _run([], {"warn_rejected_percent": 50})


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_number_of_a_run_has_the_bounds_of_its_setting(percent: int) -> None:
    seen: list[WarningLimits] = []

    numbers = asdict(WarningLimits()) | {"warn_rejected_percent": percent}

    assert not _run(seen, numbers).success
    assert seen == []


def test_numbers_of_the_queue_that_do_not_go_together_are_refused() -> None:
    tuning = QueueTuning(batch_seconds=60, visibility_seconds=60)
    queue = LoginQueueResource(url="url", **asdict(tuning))

    with pytest.raises(SettingError, match="LOGIN_VISIBILITY_SECONDS must exceed"):
        _ = queue.tuning


def test_each_number_is_shown_with_its_setting_and_meaning() -> None:
    fields = LoginQueueResource.model_fields
    resources: Any = build_definitions(ENVIRONMENT).resources

    assert fields["receivers"].description == "LOGIN_RECEIVERS: maximum of parallel receive calls."
    assert resources["login_queue"].tuning == QueueTuning(batch_messages=12)
