"""Thresholds for the numbers of a batch, as data; each limit is a number of `WarningLimits`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from fetch_mask_assets.settings import WarningLimits, setting_of


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number of a batch, its normal limit, and what to do over that limit.

    `number` names the field of `WarningLimits` that is the limit. `value` takes the raw or the
    masked frame, and the present time.
    """

    name: str
    description: str
    remedy: str
    unit: str
    number: str
    value: Callable[[pl.DataFrame, datetime], float]

    @property
    def setting(self) -> str:
        """The limit's name in the environment."""
        return setting_of(self.number)

    def limit(self, limits: WarningLimits) -> float:
        """The highest normal value."""
        return float(getattr(limits, self.number))


def oldest_age_seconds(raw: pl.DataFrame, now: datetime) -> float:
    """The age of the oldest message; 0 for an empty batch or a clock that lags."""
    oldest = raw["sent_at"].min()
    return max(0.0, (now - oldest).total_seconds()) if isinstance(oldest, datetime) else 0.0


def _percent(frame: pl.DataFrame, condition: pl.Expr) -> float:
    return 100.0 * frame.filter(condition).height / frame.height if frame.height else 0.0


RAW_THRESHOLDS = (
    Threshold(
        "redelivered_messages",
        "Messages that were received before: runs fail, or take longer than the visibility.",
        "Look for failed runs; if there are none, raise LOGIN_VISIBILITY_SECONDS.",
        "%",
        "warn_redelivered_percent",
        lambda raw, _now: _percent(raw, pl.col("receive_count") > 1),
    ),
    Threshold(
        "oldest_message_age",
        "How long the oldest message waited: more than usual means that runs do not keep up.",
        "See that the sensor runs; then raise LOGIN_MAX_RUNS or LOGIN_BATCH_MESSAGES.",
        "s",
        "warn_oldest_age_seconds",
        oldest_age_seconds,
    ),
)

MASKED_THRESHOLDS = (
    Threshold(
        "rejected_messages",
        "Messages that broke the contract and are quarantined: an app may have changed its events.",
        "fetch-mask quarantine list counts them by reason; ask the senders of those events.",
        "%",
        "warn_rejected_percent",
        lambda masked, _now: _percent(masked, pl.col("reason").is_not_null()),
    ),
    Threshold(
        "unparsed_versions",
        "Logins that load with a null version, because its text has no number.",
        "The texts are in login_ingest.version_texts; ask their senders whether they are meant so.",
        "%",
        "warn_unparsed_version_percent",
        lambda masked, _now: _percent(
            masked.filter(pl.col("reason").is_null()), pl.col("app_version").is_null()
        ),
    ),
)
