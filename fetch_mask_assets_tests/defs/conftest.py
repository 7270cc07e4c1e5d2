"""A pipeline of the test's own: queue, database, keys and Dagster instance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    AssetSelection,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    define_asset_job,
)

from fetch_mask_assets.definitions import build_definitions
from fetch_mask_assets.defs.assets import CHAIN
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.support.logins import send

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

    from fetch_mask_assets.keys.keyset import Keyring

WITHOUT_CHECKS = "without_checks"


@dataclass(frozen=True)
class Pipeline:
    """What a test runs, and what it looks at afterwards."""

    sqs: SQSClient
    queue_url: str
    database: LoginDatabase
    keysets: Path
    instance: DagsterInstance
    environment: Mapping[str, str]

    @property
    def keyring(self) -> Keyring:
        """The keys that the runs mask with."""
        return read_keyring(self.keysets)

    def definitions(self, **numbers: str) -> Definitions:
        """The product's definitions, and a job that leaves its checks out."""
        unchecked = define_asset_job(
            WITHOUT_CHECKS, selection=AssetSelection.assets(*CHAIN).without_checks()
        )
        return Definitions.merge(
            build_definitions({**self.environment, **numbers}), Definitions(jobs=[unchecked])
        )

    def send(self, texts: Iterable[str]) -> list[str]:
        """Sends messages; their ids."""
        return send(self.sqs, self.queue_url, texts)

    def run(
        self,
        *,
        messages: int = 10_000,
        job: str = "ingest_logins",
        only: Sequence[str] | None = None,
        **numbers: str,
    ) -> ExecuteInProcessResult:
        """One run; it ends at once when it has so many messages."""
        numbers = {"LOGIN_BATCH_MESSAGES": str(messages), **numbers}
        return (
            self.definitions(**numbers)
            .resolve_job_def(job)
            .execute_in_process(
                instance=self.instance,
                raise_on_error=False,
                asset_selection=[AssetKey(name) for name in only] if only else None,
            )
        )

    def receive(self, wait: int = 1, visibility: int = 300) -> list[MessageTypeDef]:
        """Up to ten messages, as another consumer receives them."""
        answer = self.sqs.receive_message(
            QueueUrl=self.queue_url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait,
            VisibilityTimeout=visibility,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return answer.get("Messages", [])

    def in_queue(self) -> tuple[int, int]:
        """How many messages wait, and how many are in flight."""
        attributes = self.sqs.get_queue_attributes(
            QueueUrl=self.queue_url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        return (
            int(attributes["ApproximateNumberOfMessages"]),
            int(attributes["ApproximateNumberOfMessagesNotVisible"]),
        )

    def rows(self) -> int:
        """How many rows user_logins has."""
        [(count,)] = self.database.query("SELECT count(*) FROM user_logins")
        return int(count)

    def is_untouched(self) -> bool:
        """Whether nothing was written."""
        return self.database.query(
            "SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM login_ingest.ledger),"
            " (SELECT count(*) FROM login_ingest.batch),"
            " (SELECT count(*) FROM login_ingest.quarantine)"
        ) == [(0, 0, 0, 0)]


@pytest.fixture
def pipeline(
    environment: dict[str, str], sqs: SQSClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    """A pipeline of the test's own, in this process."""
    for name, value in environment.items():
        if not name.startswith("DAGSTER"):
            monkeypatch.setenv(name, value)
    with DagsterInstance.ephemeral() as instance:
        yield Pipeline(
            sqs=sqs,
            queue_url=environment["LOGIN_QUEUE_URL"],
            database=LoginDatabase(environment["LOGIN_DATABASE_URL"]),
            keysets=Path(environment["MASKING_KEYSETS"]),
            instance=instance,
            environment=environment,
        )


def metadata(result: ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """The metadata of an asset's materialization."""
    [event] = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


def checks(result: ExecuteInProcessResult) -> dict[str, AssetCheckEvaluation]:
    """The checks of a run by name."""
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def failure(result: ExecuteInProcessResult) -> str:
    """Why a run failed: the innermost error of its first failed step."""
    first = next(event for event in result.all_events if event.is_step_failure)
    error = first.step_failure_data.error
    while error and error.cause:
        error = error.cause
    return error.message if error else ""
