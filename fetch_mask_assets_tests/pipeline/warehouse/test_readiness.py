"""Whether a run may receive: asked of the keys, the database, the registry and the queue."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, cast

import psycopg
import pytest

from fetch_mask_assets.errors import DatabaseError, NotReadyError
from fetch_mask_assets.keys.storage import create_keysets, read_keyring
from fetch_mask_assets.local_stack import sqs as local_sqs
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue, QueueSettings
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.pipeline.warehouse.readiness import findings, require_ready
from fetch_mask_assets_tests.support.logins import bodies, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_sqs import SQSClient

    from fetch_mask_assets.local_stack.stack import Stack
    from fetch_mask_assets.pipeline.queue.sqs.client import SqsClient


@pytest.fixture
def queue(stack: Stack, queue_url: str) -> Iterator[LoginQueue]:
    """The test's own queue."""
    client = cast("SqsClient", local_sqs.client(stack.state))
    with closing(LoginQueue(client, QueueSettings(queue_url))) as connected:
        yield connected


@pytest.fixture
def database(database_url: str) -> LoginDatabase:
    """The test's own database."""
    return LoginDatabase(database_url)


def test_a_ready_database_is_ready_and_knows_the_keys_from_then_on(
    database: LoginDatabase, keysets_directory: Path
) -> None:
    keyring = read_keyring(keysets_directory)
    require_ready(database, keyring)
    require_ready(database, keyring)
    registered = database.query("SELECT keyset, key_id FROM login_ingest.masking_key ORDER BY 1")
    assert registered == sorted(
        (name, key_id) for name, checks in keyring.check_values.items() for key_id in checks
    )


@pytest.mark.parametrize(
    ("damage", "revision"),
    [
        ("DROP TABLE login_ingest.schema_version", "none"),
        ("DELETE FROM login_ingest.schema_version", "none"),
        ("UPDATE login_ingest.schema_version SET version_num = '9999'", "9999"),
    ],
)
def test_another_schema_is_not_ready(
    database: LoginDatabase, keysets_directory: Path, damage: str, revision: str
) -> None:
    _run(database.url, damage)
    with pytest.raises(NotReadyError, match=rf"revision {revision},.*fetch-mask migrate"):
        require_ready(database, read_keyring(keysets_directory))
    assert database.query("SELECT keyset FROM login_ingest.masking_key") == []


def test_other_keys_are_not_ready_and_are_not_registered(
    database: LoginDatabase, keysets_directory: Path, tmp_path: Path
) -> None:
    require_ready(database, read_keyring(keysets_directory))
    create_keysets(tmp_path / "others")
    with pytest.raises(NotReadyError, match=r"masking keys do not fit.*keyset of ip lacks key"):
        require_ready(database, read_keyring(tmp_path / "others"))
    assert database.query("SELECT count(*) FROM login_ingest.masking_key") == [(3,)]


def test_a_database_that_is_down_is_not_ready(keysets_directory: Path) -> None:
    with pytest.raises(DatabaseError):
        require_ready(LoginDatabase(_nowhere()), read_keyring(keysets_directory))


def test_findings_are_all_well_and_change_nothing(
    database: LoginDatabase, keysets_directory: Path, queue: LoginQueue, sqs: SQSClient,
    queue_url: str,
) -> None:  # fmt: skip
    send(sqs, queue_url, bodies(3))
    found = findings(database, keysets_directory, queue)
    assert [(each.name, each.ok) for each in found] == [
        ("masking keys", True),
        ("database", True),
        ("key registry", True),
        ("queue", True),
    ]
    assert found[-1].description == "the queue answers: 3 messages wait, 0 are in flight."
    assert database.query("SELECT count(*) FROM login_ingest.masking_key") == [(0,)]


def test_findings_without_a_queue_do_not_ask_it(
    database: LoginDatabase, keysets_directory: Path
) -> None:
    assert [each.name for each in findings(database, keysets_directory)] == [
        "masking keys",
        "database",
        "key registry",
    ]


def test_each_finding_that_is_not_well_says_what_to_do(
    tmp_path: Path, queue_url: str, stack: Stack
) -> None:
    client = cast("SqsClient", local_sqs.client(stack.state))
    with closing(LoginQueue(client, QueueSettings(f"{queue_url}-missing"))) as missing:
        found = findings(LoginDatabase(_nowhere()), tmp_path, missing)
    assert not any(each.ok for each in found)
    description = [each.description for each in found]
    assert [
        remedy in said
        for said, remedy in zip(
            description,
            ("MASKING_KEYSETS", "LOGIN_DATABASE_URL", "MASKING_KEYSETS", "LOGIN_QUEUE_URL"),
            strict=True,
        )
    ] == [True] * 4


def test_a_database_that_was_never_migrated_is_told_to_be(
    database: LoginDatabase, keysets_directory: Path
) -> None:
    _run(database.url, "DROP SCHEMA login_ingest CASCADE")
    found = {each.name: each for each in findings(database, keysets_directory)}
    assert not found["database"].ok
    assert "run `fetch-mask migrate`" in found["database"].description
    assert not found["key registry"].ok


def test_a_table_that_takes_no_rows_is_found_by_whoever_commits(
    database: LoginDatabase, keysets_directory: Path
) -> None:
    well = {each.name: each for each in findings(database, keysets_directory, commits=True)}
    assert well["table"].ok
    assert database.query("SELECT user_id FROM user_logins") == []
    _run(database.url, "ALTER TABLE user_logins RENAME TO elsewhere")
    found = {each.name: each for each in findings(database, keysets_directory, commits=True)}
    assert not found["table"].ok
    assert "42P01" in found["table"].description
    assert all(each.ok for each in findings(database, keysets_directory))


def test_the_table_is_not_asked_where_something_else_is_not_well(
    database: LoginDatabase, tmp_path: Path
) -> None:
    found = findings(database, tmp_path / "nowhere", commits=True)
    assert "table" not in {each.name for each in found}


def test_other_keys_are_found(
    database: LoginDatabase, keysets_directory: Path, tmp_path: Path
) -> None:
    require_ready(database, read_keyring(keysets_directory))
    create_keysets(tmp_path / "others")
    found = {each.name: each for each in findings(database, tmp_path / "others")}
    assert [found[name].ok for name in ("masking keys", "database")] == [True, True]
    assert not found["key registry"].ok
    assert "lacks key" in found["key registry"].description


def _nowhere() -> str:
    return f"postgresql://someone:secret@127.0.0.1:{free_port()}/logins"


def _run(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
