"""The sensor that sends alerts: failed checks, failed runs, a table that is no longer loaded."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    ConfigurableResource,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    EnvVar,
    RunRecord,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)
from pydantic import Field

from fetch_mask_assets import settings
from fetch_mask_assets.defs.assets import USER_LOGINS
from fetch_mask_assets.defs.dagster_internals import AssetCheckExecutionRecord
from fetch_mask_assets.defs.dagster_internals import AssetCheckExecutionRecordStatus as _Status
from fetch_mask_assets.defs.jobs import INGEST_LOGINS, MAX_RUN_SECONDS
from fetch_mask_assets.defs.redaction import redact_errors
from fetch_mask_assets.defs.resources import LoginDatabaseResource, LoginQueueResource
from fetch_mask_assets.defs.sensor import AD_HOC
from fetch_mask_assets.errors import AlertError, DatabaseError, QueueError
from fetch_mask_assets.operations.alerts.alert import (
    MAX_NAMED_RUNS,
    FailedCheck,
    FailedRun,
    LoadFreshness,
    check_failed,
    run_failed,
    table_is_stale,
)
from fetch_mask_assets.operations.alerts.destinations import AlertDestinations
from fetch_mask_assets.operations.alerts.state import AlertState, Observation
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase

ALERT_STATE = "fetch_mask/alert_state"
_FRESHNESS = "freshness"
_PAGE = 100
_TAKE_MESSAGES = (INGEST_LOGINS, AD_HOC)
# Dagster stops a tick that takes longer than a minute.
_DELIVERY_SECONDS = 20.0


class AlertDestinationsResource(ConfigurableResource["AlertDestinationsResource"]):
    """The destinations of alerts besides the log."""

    webhook: str = Field(default="", description="URL that alerts are posted to; a secret.")
    command: str = Field(default="", description="Command that gets each alert on its stdin.")

    @property
    def destinations(self) -> AlertDestinations:
        """The destinations that are set.

        Raises:
            SettingError: one of them is not valid.
        """
        given = {settings.ALERT_WEBHOOK: self.webhook, settings.ALERT_COMMAND: self.command}
        return AlertDestinations(settings.alert_webhook(given), settings.alert_command(given))

    def __repr__(self) -> str:
        """Names the class only: its fields are secrets."""
        return "AlertDestinationsResource(...)"

    __str__ = __repr__


def alert_destinations(environ: Mapping[str, str]) -> AlertDestinationsResource:
    """The destinations of an environment, by name of setting: Dagster shows the config's values."""
    given = {"webhook": settings.ALERT_WEBHOOK, "command": settings.ALERT_COMMAND}
    return AlertDestinationsResource(
        **{key: EnvVar(name) for key, name in given.items() if environ.get(name, "").strip()}
    )


def alert_sensor(meanings: Mapping[AssetCheckKey, str], freshness_seconds: int) -> SensorDefinition:
    """The sensor that sends alerts.

    Args:
        meanings: for each check, its meaning and its remedy.
        freshness_seconds: the limit of the time without a load while messages wait.
    """

    @sensor(
        name="alerts",
        minimum_interval_seconds=30,
        default_status=DefaultSensorStatus.RUNNING,
        description="Sends alerts of failed checks, failed runs and a table that is no longer"
        " loaded to the log, and to the webhook and the command that are set. A failed delivery"
        " fails the tick; the alert is kept and sent at a later tick.",
    )
    def alerts(
        context: SensorEvaluationContext,
        login_queue: LoginQueueResource,
        login_database: LoginDatabaseResource,
        alert_destinations: AlertDestinationsResource,
    ) -> SkipReason:
        with redact_errors("looking for alerts"):
            now = time.time()
            alert_state = _alert_state(context.instance, now)
            batches = _Batches(login_database.database)
            observations = [
                *_failed_runs(context.instance, alert_state, batches),
                *_evaluations(context.instance, alert_state, batches, meanings),
                _freshness(
                    context.instance,
                    login_queue,
                    alert_state.first_observed_at,
                    (now, freshness_seconds),
                ),
            ]
            destinations = alert_destinations.destinations
            alert_state = alert_state.with_observations(observations, destinations.names, now)
            _keep(context.instance, alert_state)
            return SkipReason(_deliver(context.instance, alert_state, destinations))

    return alerts


# In the instance and not in the sensor's cursor: Dagster drops the cursor of a failed tick.
def _alert_state(instance: DagsterInstance, now: float) -> AlertState:
    kept = instance.daemon_cursor_storage.get_cursor_values({ALERT_STATE}).get(ALERT_STATE)
    return (
        AlertState.from_json(kept)
        if kept
        else AlertState(first_observed_at=now, last_observed_at=now)
    )


def _keep(instance: DagsterInstance, alert_state: AlertState) -> None:
    instance.daemon_cursor_storage.set_cursor_values({ALERT_STATE: alert_state.as_json()})


def _deliver(
    instance: DagsterInstance, alert_state: AlertState, destinations: AlertDestinations
) -> str:
    """Sends pending alerts within a tick's time; returns a sentence about them.

    Raises:
        AlertError: a delivery failed; the other destinations were served.
    """
    failures: dict[str, str] = {}
    before = alert_state
    deadline = time.monotonic() + _DELIVERY_SECONDS
    for name, alert in alert_state.pending:
        if name in failures or time.monotonic() > deadline:
            continue
        try:
            destinations.send(name, alert)
        except AlertError as error:
            failures[name] = str(error)
            continue
        alert_state = alert_state.without((name, alert))
        _keep(instance, alert_state)
    if failures:
        raise AlertError(
            f"{alert_state.pending_alerts} of {before.pending_alerts} alerts did not arrive"
            f" everywhere and are kept for the next tick: {' '.join(failures.values())}"
        )
    return _summary(before.pending_alerts, alert_state.pending_alerts, destinations)


def _summary(new: int, left: int, destinations: AlertDestinations) -> str:
    where = ", ".join(destinations.names)
    if not new:
        return f"Nothing new has failed, so no alert was sent. Alerts go to: {where}."
    return f"Sent {new - left} alerts to: {where}; {left} are pending for the next tick."


class _Batches:
    """The commits of runs; a database that is down is queried only once."""

    def __init__(self, database: LoginDatabase) -> None:
        """Takes the warehouse."""
        self._database = database
        self._is_down = False

    def is_committed(self, run_id: str) -> bool | None:
        """Return whether a run committed its batch; None if the database is unreachable."""
        if self._is_down:
            return None
        try:
            return self._database.batch_counts(run_id) is not None
        except DatabaseError:
            self._is_down = True
            return None


def _failed_runs(
    instance: DagsterInstance, alert_state: AlertState, batches: _Batches
) -> Iterator[Observation]:
    updated_after = datetime.fromtimestamp(alert_state.horizon, UTC)
    failed = RunsFilter(statuses=[DagsterRunStatus.FAILURE], updated_after=updated_after)
    for record in instance.get_run_records(failed):
        run = record.dagster_run
        key = f"run:{run.run_id}"
        if key not in alert_state.reported:
            failed_run = FailedRun(
                run.run_id, run.job_name, run.job_name in _TAKE_MESSAGES, _ended(record)
            )
            alert = run_failed(failed_run, is_committed=batches.is_committed(run.run_id))
            yield Observation(key, None, failed_run.at, alert)


def _ended(record: RunRecord) -> float:
    return record.end_time or record.update_timestamp.timestamp()


def _evaluations(
    instance: DagsterInstance,
    alert_state: AlertState,
    batches: _Batches,
    meanings: Mapping[AssetCheckKey, str],
) -> Iterator[Observation]:
    """One observation for each check with failures that were not reported."""
    for key, meaning in meanings.items():
        new = {
            id_: _failed_check(evaluation, record.run_id, meaning, at)
            for record, evaluation, at in _failures(instance, key, alert_state.horizon)
            if (id_ := f"{key.to_user_string()}:{record.id}") not in alert_state.reported
        }
        if new:
            newest, *others = sorted(new, key=lambda id_: new[id_].at, reverse=True)
            failures = [new[id_] for id_ in (newest, *others)]
            committed = {batches.is_committed(each.run_id) for each in failures[:MAX_NAMED_RUNS]}
            alert = check_failed(failures, committed)
            yield Observation(newest, None, alert.at, alert, tuple(others))


def _failures(
    instance: DagsterInstance, key: AssetCheckKey, since: float
) -> Iterator[tuple[AssetCheckExecutionRecord, AssetCheckEvaluation, float]]:
    """The failed evaluations of a check since a time."""
    cursor: int | None = None
    while True:
        page = instance.event_log_storage.get_asset_check_execution_history(
            key, _PAGE, cursor, {_Status.FAILED}
        )
        for record in page:
            event = record.event
            if event and event.dagster_event and event.timestamp >= since:
                yield record, event.dagster_event.asset_check_evaluation_data, event.timestamp
        # A record is as old as the plan of its check, which is at most the longest run older.
        if len(page) < _PAGE or page[-1].create_timestamp < since - MAX_RUN_SECONDS:
            return
        cursor = page[-1].id


def _failed_check(
    evaluation: AssetCheckEvaluation, run_id: str, meaning: str, at: float
) -> FailedCheck:
    numbers = {
        name: value.value
        for name, value in evaluation.metadata.items()
        if isinstance(value.value, int | float)
    }
    is_warning = evaluation.severity is AssetCheckSeverity.WARN
    asset = evaluation.asset_key.to_user_string()
    return FailedCheck(asset, evaluation.check_name, run_id, is_warning, meaning, numbers, at)


def _freshness(
    instance: DagsterInstance,
    login_queue: LoginQueueResource,
    started: float,
    clock: tuple[float, int],
) -> Observation:
    now, limit = clock
    last = instance.get_latest_materialization_event(USER_LOGINS)
    # Before the first load, the time counts from the first tick.
    since = last.timestamp if last else started
    try:
        waiting: int | None = login_queue.queue.depth().waiting
    except QueueError:
        waiting = None
    freshness = LoadFreshness(now - since, limit, waiting)
    alert = table_is_stale(freshness, since) if freshness.is_stale else None
    return Observation(f"{_FRESHNESS}:{now}", _FRESHNESS, now, alert)
