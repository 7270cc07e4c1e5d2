"""Dagster's storage over a pool: few connections, and a server that restarts in between."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult, job, op

import fetch_mask_assets
from fetch_mask_assets.defs.pooled_storage import PooledPostgresStorage
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.local_stack.state import State, new_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAGSTER_YAML = Path(fetch_mask_assets.__file__).parent / "local_stack" / "dagster.yaml"


class Storage:
    """A Postgres of the test's own with an empty database for Dagster, and a home that names it."""

    def __init__(self, directory: Path, state: State) -> None:
        """Starts the server."""
        self._directory, self._state = directory, state
        postgres.start(directory, state)
        postgres.create_databases(state, ("dagster",))

    @property
    def url(self) -> str:
        """The setting of Dagster's storage."""
        return postgres.url(self._state, "dagster", "postgresql+psycopg2")

    def restart(self) -> None:
        """Ends every connection."""
        postgres.stop_server(self._directory)
        postgres.start(self._directory, self._state)

    def terminate_backends(self) -> None:
        """Ends every other connection, while the server stays."""
        self._query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = 'dagster' AND pid <> pg_backend_pid()"
        )

    def backends(self) -> int:
        """The open connections to the database, but for this one."""
        return self._query(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = 'dagster' AND pid <> pg_backend_pid()"
        )

    def _query(self, statement: str) -> int:
        with psycopg.connect(postgres.url(self._state, "dagster")) as connection:
            row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else 0


@pytest.fixture(scope="module", name="storage")
def _storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    directory = tmp_path_factory.mktemp("storage") / "postgres"
    try:
        yield Storage(directory, new_state())
    finally:
        postgres.stop_server(directory)


@pytest.fixture
def instance(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DagsterInstance]:
    """An instance as the product's dagster.yaml describes it."""
    shutil.copy(DAGSTER_YAML, tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", storage.url)
    monkeypatch.setenv("LOGIN_MAX_RUNS", "2")
    with DagsterInstance.get() as instance:
        yield instance


@pytest.mark.parametrize("cut", [Storage.restart, Storage.terminate_backends])
def test_a_run_survives_that_its_connections_end_during_a_step(
    storage: Storage, instance: DagsterInstance, cut: Callable[[Storage], None]
) -> None:
    result = _run(instance, during=lambda: cut(storage))

    assert result.success
    assert _recorded_steps(instance, result) == ["before", "during", "after"]
    assert [run.is_success for run in instance.get_runs()][:1] == [True]


def test_a_run_survives_that_its_connections_ended_before_it(
    storage: Storage, instance: DagsterInstance
) -> None:
    instance.get_runs_count()
    storage.restart()

    assert _run(instance).success


def test_a_run_holds_one_connection(storage: Storage, instance: DagsterInstance) -> None:
    held: list[int] = []

    assert _run(instance, during=lambda: held.append(storage.backends())).success
    assert held == [1]


def test_the_instances_of_a_process_share_one_connection(
    storage: Storage, instance: DagsterInstance
) -> None:
    for _ in range(5):
        with DagsterInstance.from_ref(instance.get_ref()) as another:
            another.get_runs_count()

    assert storage.backends() == 1


def test_instances_that_connect_with_a_token_share_one_pool() -> None:
    config = {
        "postgres_db": {"hostname": "127.0.0.1", "username": "dagster", "db_name": "dagster"},
        "auth_provider": {"aws_wif": {"region": "eu-west-1"}},
        "should_autocreate_tables": False,
    }

    one, other = (PooledPostgresStorage.from_config_value(None, config) for _ in range(2))

    assert vars(one.run_storage)["_engine"] is vars(other.run_storage)["_engine"]


def _run(
    instance: DagsterInstance, during: Callable[[], object] = lambda: None
) -> ExecuteInProcessResult:
    @op(name="before")
    def before() -> int:
        return 1

    @op(name="during")
    def middle(number: int) -> int:
        during()
        return number

    @op
    def after(number: int) -> int:
        return number

    @job
    def three_steps() -> None:
        after(middle(before()))

    return three_steps.execute_in_process(instance=instance, raise_on_error=False)


def _recorded_steps(instance: DagsterInstance, result: ExecuteInProcessResult) -> list[str]:
    events = [entry.dagster_event for entry in instance.all_logs(result.run_id)]
    return [str(event.step_key) for event in events if event and event.is_step_success]
