"""The gateways as Dagster resources: settings, and nothing more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
from dagster import ConfigurableResource, InitResourceContext
from dagster_aws.utils import ResourceWithBoto3Configuration
from pydantic import Field, PrivateAttr

from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.storage import Keysets, keysets_at, read_keyring
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch
from fetch_mask_assets.pipeline.batch.thresholds import Limits
from fetch_mask_assets.pipeline.queue.crash_dumps import disable_core_dumps
from fetch_mask_assets.pipeline.queue.limits import DrainLimits
from fetch_mask_assets.pipeline.queue.poison import MIN_SUSPECT_RECEIVES
from fetch_mask_assets.pipeline.queue.sqs import LoginQueue, QueueSettings, connect_queue
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase


class LoginQueueResource(ResourceWithBoto3Configuration):
    """The login queue. Open for the time of a run; what the run then holds goes back."""

    url: str = Field(description="URL of the SQS queue that login events wait on.")
    batch_messages: int = Field(description="Messages in one batch, at most.")
    batch_bytes: int = Field(description="Bytes of message bodies in one batch.")
    batch_seconds: int = Field(description="Seconds after which a batch stops receiving.")
    receivers: int = Field(description="Receive calls under way at once.")
    wait_seconds: int = Field(description="Seconds that one long poll waits.")
    empty_answers: int = Field(description="Empty answers in a row that end a batch.")
    visibility_seconds: int = Field(description="Seconds for which received messages are hidden.")

    dry_run_from_receive: int = Field(
        default=MIN_SUSPECT_RECEIVES,
        description="From this receive on, a message is masked in a process of its own first.",
    )

    _queue: LoginQueue = PrivateAttr()

    @property
    def queue(self) -> LoginQueue:
        """The connection of this run or tick."""
        return self._queue

    @property
    def limits(self) -> DrainLimits:
        """What ends a batch."""
        return DrainLimits(
            messages=self.batch_messages,
            bytes=self.batch_bytes,
            seconds=self.batch_seconds,
            empty_answers=self.empty_answers,
        )

    @contextmanager
    def yield_for_execution(
        self,
        context: InitResourceContext,  # noqa: ARG002 (Dagster passes it by name)
    ) -> Iterator["LoginQueueResource"]:
        """Connects, and at the end hands back what is neither deleted nor released."""
        disable_core_dumps()
        with connect_queue(self._settings()) as queue:
            self._queue = queue
            yield self

    def _settings(self) -> QueueSettings:
        return QueueSettings(
            url=self.url,
            receivers=self.receivers,
            wait_seconds=self.wait_seconds,
            visibility_seconds=self.visibility_seconds,
            max_attempts=self.max_attempts,
            client_options=self._client_options(),
        )

    def _client_options(self) -> dict[str, Any]:
        given = {
            "region_name": self.region_name,
            "endpoint_url": self.endpoint_url,
            "aws_access_key_id": self.aws_access_key_id,
            "aws_secret_access_key": self.aws_secret_access_key,
            "aws_session_token": self.aws_session_token,
        }
        return {name: value for name, value in given.items() if value is not None}

    def __repr__(self) -> str:
        """Names the class only: its fields can hold credentials."""
        return "LoginQueueResource(...)"

    __str__ = __repr__


class LoginDatabaseResource(ConfigurableResource["LoginDatabaseResource"]):
    """The warehouse that holds user_logins."""

    url: str = Field(description="libpq URL of the warehouse; holds a password.")

    @property
    def database(self) -> LoginDatabase:
        """The gateway to the warehouse."""
        return LoginDatabase(self.url)

    def __repr__(self) -> str:
        """Names the class only: the URL holds a password."""
        return "LoginDatabaseResource(...)"

    __str__ = __repr__


class MaskingKeysResource(ConfigurableResource["MaskingKeysResource"]):
    """Where the masking keysets are kept; never the keys themselves."""

    location: str = Field(description="Directory or aws-secretsmanager:// that has the keysets.")
    kms_key: str = Field(default="", description="KMS key that wraps them; empty if none does.")

    _keyring: Keyring | None = PrivateAttr(default=None)
    _batch: MaskedBatch | None = PrivateAttr(default=None)

    @property
    def keysets(self) -> Keysets:
        """The keysets, wherever they are kept.

        Raises:
            KeysetError: the location is none, or the AWS settings do not allow it.
        """
        return keysets_at(self.location, self.kms_key or None)

    @property
    def keyring(self) -> Keyring:
        """The keys, read once: a run masks, checks and seals with the same ones.

        Raises:
            KeysetError: a keyset cannot be read.
        """
        if self._keyring is None:
            self._keyring = read_keyring(self.keysets)
        return self._keyring

    def batch(self, raw: pl.DataFrame, masked: pl.DataFrame) -> MaskedBatch:
        """What the rules look at; for the same two frames the same, so that a run reads them once.

        Other frames, equal or not, are looked at anew.
        """
        known = self._batch
        if known is None or known.raw is not raw or known.masked is not masked:
            known = self._batch = MaskedBatch(raw, masked, self.keyring)
        return known


class WarningLimitsResource(ConfigurableResource["WarningLimitsResource"]):
    """Up to which numbers a batch is normal."""

    rejected_percent: float = Field(description="Rejected messages of a batch.")
    unparsed_version_percent: float = Field(description="Logins whose version has no number.")
    redelivered_percent: float = Field(description="Messages received more than once.")
    age_seconds: float = Field(description="Age of the oldest message.")

    @property
    def limits(self) -> Limits:
        """The limits as the domain takes them."""
        return Limits(
            rejected_percent=self.rejected_percent,
            unparsed_version_percent=self.unparsed_version_percent,
            redelivered_percent=self.redelivered_percent,
            age_seconds=self.age_seconds,
        )
