"""Which alerts are new, and which are still to be sent.

A failure is told once: a run that failed and an evaluation of a check that failed by their ids, the
freshness when it is lost and not again until it is back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fetch_mask_assets.operations.alerts.alert import Alert

OVERLAP_SECONDS = 600.0
"""How much later than it happened something may come into sight."""

MAX_PENDING = 1_000
"""More than this are not kept for a destination that is down; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Something that passed (no alert) or failed.

    `subject` names what passes and fails in turn; None for what fails once, as a run does. `also`
    are the ids of further failures that the same alert tells of.
    """

    id: str
    subject: str | None
    at: float
    alert: Alert | None
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AlertState:
    """Which failures were seen, what fails at present since when, and which alerts go where yet.

    `started` is the first look, `since` the last one.
    """

    started: float
    since: float
    seen: Mapping[str, float] = field(default_factory=dict)
    failing: Mapping[str, float] = field(default_factory=dict)
    pending: tuple[tuple[str, Alert], ...] = ()

    @property
    def horizon(self) -> float:
        """What happened before has been dealt with."""
        return self.since - OVERLAP_SECONDS

    @property
    def alerts(self) -> int:
        """How many alerts have not yet arrived everywhere."""
        return len({alert.id for _, alert in self.pending})

    def with_observations(
        self, observations: Iterable[Observation], destinations: Sequence[str], now: float
    ) -> AlertState:
        """The outbox after a look; new alerts wait for each destination."""
        new = sorted(
            (each for each in observations if each.id not in self.seen and each.at >= self.horizon),
            key=lambda each: each.at,
        )
        failing, alerts = _told(self.failing, new)
        pending = (*self.pending, *((name, alert) for alert in alerts for name in destinations))
        wanted = [(name, alert) for name, alert in pending if name in destinations]
        told = {id_: each.at for each in new if each.alert for id_ in (each.id, *each.also)}
        seen = {**self.seen, **told}
        return AlertState(
            started=self.started,
            since=now,
            seen={key: at for key, at in seen.items() if at >= now - OVERLAP_SECONDS},
            failing=failing,
            pending=tuple(wanted[-MAX_PENDING:]),
        )

    def without(self, sent: tuple[str, Alert]) -> AlertState:
        """The outbox after an alert has arrived."""
        return replace(self, pending=tuple(each for each in self.pending if each != sent))

    def as_json(self) -> str:
        """The outbox as it is kept."""
        return json.dumps(
            {
                "started": self.started,
                "since": self.since,
                "seen": dict(self.seen),
                "failing": dict(self.failing),
                "pending": [[name, alert.as_dict()] for name, alert in self.pending],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> AlertState:
        """The outbox of `as_json`."""
        kept = json.loads(text)
        pending = tuple((name, Alert.from_dict(parts)) for name, parts in kept["pending"])
        return cls(**{**kept, "pending": pending})


def _told(
    failing: Mapping[str, float], observations: Iterable[Observation]
) -> tuple[dict[str, float], list[Alert]]:
    """What fails after the sightings, in the order of time, and the alerts of what began to."""
    still = dict(failing)
    alerts = []
    for each in observations:
        if each.subject is None:
            alerts += [each.alert] if each.alert else []
        elif each.alert is None:
            # A pass may be seen again; it ends only a failure that came before it.
            if each.at > still.get(each.subject, each.at):
                del still[each.subject]
        else:
            alerts += [] if each.subject in still else [each.alert]
            still[each.subject] = each.at
    return still, alerts
