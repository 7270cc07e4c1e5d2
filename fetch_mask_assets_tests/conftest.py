"""A real Postgres and a real SQS server for the tests, and a database and a queue for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest
from botocore.loaders import JSONFileLoader
from mypy_boto3_sqs import SQSClient
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from fetch_mask_assets import settings
from fetch_mask_assets.keys.storage import create_keysets
from fetch_mask_assets.local_stack import environment as local_environment
from fetch_mask_assets.local_stack import postgres, sqs
from fetch_mask_assets.local_stack import stack as local_stack
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets.postgres import migrate
from fetch_mask_assets_tests.support import kinds
from fetch_mask_assets_tests.support.databases import Databases, administer

_TEMPLATE = "template_logins"
_PARTITIONED_TEMPLATE = "template_partitioned"
# No test of this server asks what a crash of the machine leaves on its disk.
_WITHOUT_DURABILITY = ("fsync", "full_page_writes")
# These share a fixture that takes long to set up.
_ON_ONE_WORKER = (
    "browser/test_dagster_ui.py",
    "browser/test_report_page.py",
    "chaos/test_traces.py",
    "defs/test_bad_inputs.py",
    "defs/test_leaks.py",
    "defs/test_webserver.py",
)

# The same examples each time, so that a change is what makes a test fail; HYPOTHESIS_PROFILE=long
# tries others, fifty times as many, and pytest prints the seed that failed (--hypothesis-seed).
hypothesis.settings.register_profile("quick", derandomize=True, deadline=None)
hypothesis.settings.register_profile(
    "long", max_examples=5_000, deadline=None, print_blob=True, derandomize=False
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the servers of the stack, and put the longest tests first.

    Workers take the tests one by one in this order, so that none is left with a long one at the
    end. The longest have a time-out of their own.
    """
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.servers)
    items.sort(
        key=lambda item: [not item.get_closest_marker(mark) for mark in ("timeout", "servers")]
    )


class _OneByOne(LoadScopeScheduling):
    """Gives workers one test at a time, but some modules as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module.endswith(_ON_ONE_WORKER) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Distribute the tests with `_OneByOne`. The option --dist has no effect."""
    return _OneByOne(config, log)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests of a process; with pytest-xdist, one for each worker."""
    checkout = tmp_path_factory.mktemp("checkout")
    try:
        stack = local_stack.up(checkout)
        for setting in _WITHOUT_DURABILITY:
            administer(stack, f"ALTER SYSTEM SET {setting} = off")
        administer(stack, "SELECT pg_reload_conf()")
        yield stack
    finally:
        local_stack.down(checkout, delete=True)


@pytest.fixture(scope="session", autouse=True)
def _service_models_read_once() -> Iterator[None]:
    """Keep the descriptions of AWS's services, which every client parses again otherwise."""
    load_file = cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _loader, path: load_file(path))
        yield


@pytest.fixture(name="sqs", scope="session")
def _sqs(stack: Stack) -> SQSClient:
    return sqs.client(stack.state)


@pytest.fixture(scope="session")
def template_database(stack: Stack) -> str:
    """A migrated database that nothing connects to, so that it can be copied."""
    administer(stack, f"CREATE DATABASE {_TEMPLATE} TEMPLATE {local_environment.LOGINS}")
    return _TEMPLATE


@pytest.fixture(scope="session")
def partitioned_template(stack: Stack) -> str:
    """The same with a user_logins that is partitioned by month."""
    administer(stack, f"CREATE DATABASE {_PARTITIONED_TEMPLATE}")
    migrate.upgrade(postgres.url(stack.state, _PARTITIONED_TEMPLATE), partitioned=True)
    return _PARTITIONED_TEMPLATE


@pytest.fixture(scope="session")
def plain_databases(stack: Stack, template_database: str) -> Databases:
    """Databases with a plain user_logins."""
    return Databases(stack, template_database)


@pytest.fixture(scope="session")
def partitioned_databases(stack: Stack, partitioned_template: str) -> Databases:
    """Databases with a partitioned user_logins."""
    return Databases(stack, partitioned_template)


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest,
    stack: Stack,  # noqa: ARG001 (so that pytest sees that servers are used)
) -> Iterator[str]:
    """A migrated, empty database of the test's own; `kinds.BOTH_KINDS` parametrizes it."""
    kind = getattr(request, "param", kinds.PLAIN)
    fixture = "plain_databases" if kind == kinds.PLAIN else "partitioned_databases"
    databases: Databases = request.getfixturevalue(fixture)
    with databases.database() as url:
        yield url


@pytest.fixture
def queue_url(sqs: SQSClient) -> Iterator[str]:
    """An empty queue of the test's own, with a dead-letter queue."""
    yield from _queue(sqs, _unique("login-events"))


@pytest.fixture
def keysets_directory(tmp_path: Path) -> Path:
    """Keysets of the test's own."""
    directory = tmp_path / "keysets"
    create_keysets(directory)
    return directory


@pytest.fixture
def environment(
    stack: Stack, database_url: str, queue_url: str, keysets_directory: Path
) -> dict[str, str]:
    """Every setting, pointing at what the test has of its own; Dagster's storage is shared."""
    return {
        **stack.environment,
        settings.DATABASE_URL: database_url,
        settings.QUEUE_URL: queue_url,
        settings.KEYSETS: str(keysets_directory),
    }


def _queue(client: SQSClient, name: str) -> Iterator[str]:
    dead_letters = f"{name}-dead-letter"
    url = sqs.create_queues(client, name, dead_letters)
    try:
        yield url
    finally:
        client.delete_queue(QueueUrl=url)
        client.delete_queue(QueueUrl=url.replace(name, dead_letters))


def _unique(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"
