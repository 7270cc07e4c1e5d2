"""Alert state: deduplication and pending deliveries.

A failed run and a failed evaluation of a check are reported once, by their ids. A state that lasts,
such as a stale table, is reported when it begins, and again only after it has ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from fetch_mask_assets.operations.alerts.alert import Alert

OVERLAP_SECONDS = 600.0
"""An event may become visible so much later than it happened."""

MAX_PENDING = 1_000
"""The limit of deliveries that are kept; the oldest are dropped first."""


@dataclass(frozen=True, slots=True)
class Observation:
    """An event that passed (no alert) or failed.

    `subject` names a state that passes and fails in turn; None for a single event, such as a
    failed run. `covered_ids` are further failures that the same alert reports.
    """

    id: str
    subject: str | None
    at: float
    alert: Alert | None
    covered_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AlertState:
    """The reported failures, the failing states and the pending deliveries; times in seconds.

    `reported` has times by the id of a failure, `failing` by the subject of a state; `pending` has
    the destination and the alert of each delivery.
    """

    first_observed_at: float
    last_observed_at: float
    reported: Mapping[str, float] = field(default_factory=dict)
    failing: Mapping[str, float] = field(default_factory=dict)
    pending: tuple[tuple[str, Alert], ...] = ()

    @property
    def horizon(self) -> float:
        """The time before which events are ignored: they were observed."""
        return self.last_observed_at - OVERLAP_SECONDS

    @property
    def pending_alerts(self) -> int:
        """The number of alerts that have not arrived everywhere."""
        return len({alert.id for _, alert in self.pending})

    def with_observations(
        self, observations: Iterable[Observation], destinations: Sequence[str], now: float
    ) -> AlertState:
        """The state after observations at the time `now`; new alerts are pending everywhere."""
        new = sorted(
            (
                each
                for each in observations
                if each.id not in self.reported and each.at >= self.horizon
            ),
            key=lambda each: each.at,
        )
        failing, alerts = _failing_and_alerts(self.failing, new)
        pending = (*self.pending, *((name, alert) for alert in alerts for name in destinations))
        deliverable = [(name, alert) for name, alert in pending if name in destinations]
        reported = dict(self.reported)
        for each in new:
            if each.alert:
                reported |= dict.fromkeys((each.id, *each.covered_ids), each.at)
        return AlertState(
            first_observed_at=self.first_observed_at,
            last_observed_at=now,
            reported={key: at for key, at in reported.items() if at >= now - OVERLAP_SECONDS},
            failing=failing,
            pending=tuple(deliverable[-MAX_PENDING:]),
        )

    def without(self, sent: tuple[str, Alert]) -> AlertState:
        """The state after a delivery."""
        return replace(self, pending=tuple(each for each in self.pending if each != sent))

    def as_json(self) -> str:
        """The state as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> AlertState:
        """The state of `as_json`."""
        kept = json.loads(text)
        pending = tuple((name, Alert.from_dict(parts)) for name, parts in kept["pending"])
        return cls(**{**kept, "pending": pending})


def _failing_and_alerts(
    failing: Mapping[str, float], observations: Iterable[Observation]
) -> tuple[dict[str, float], list[Alert]]:
    """The failing states after observations in order of time, and the alerts of new failures."""
    after = dict(failing)
    alerts = []
    for each in observations:
        if each.subject is None:
            alerts += [each.alert] if each.alert else []
        elif each.alert is None:
            # A pass may be observed again; it ends only a failure that came before it.
            if each.at > after.get(each.subject, each.at):
                del after[each.subject]
        else:
            alerts += [] if each.subject in after else [each.alert]
            after[each.subject] = each.at
    return after, alerts
