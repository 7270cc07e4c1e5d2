"""Dagster resources: the queue, the database, the keysets and the limits of warnings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from dagster import ConfigurableResource, InitResourceContext, ResourceDefinition, resource
from pydantic import Field, PrivateAttr, create_model

from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.storage import Keysets, keysets_at, read_keyring
from fetch_mask_assets.pipeline.queue.isolation import DryRunPolicy
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue, QueueSettings, connect_queue
from fetch_mask_assets.pipeline.queue.poison import MIN_SUSPECT_RECEIVES
from fetch_mask_assets.pipeline.queue.process_limits import disable_core_dumps
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.settings import QueueTuning, WarningLimits

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Group = TypeVar("_Group", bound="DataclassInstance")


def _with_numbers(base: type[Any], group: type[Any]) -> Any:  # noqa: ANN401 (made at run time)
    """A resource with a field for each number of a group of settings.

    The fields have no defaults: Dagster would take those, and not the environment's numbers, for
    what the configuration of a run leaves out.
    """
    numbers: Any = {
        each.name: (
            int,
            Field(
                ge=each.metadata["at_least"],
                le=each.metadata["at_most"],
                description=f"{each.metadata['name']}: {each.metadata['meaning']}.",
            ),
        )
        for each in fields(group)
    }
    return create_model(group.__name__, __base__=base, **numbers)


def _numbers(resource: object, group: type[_Group]) -> _Group:
    return group(**{each.name: getattr(resource, each.name) for each in fields(group)})


_QueueNumbers: Any = _with_numbers(ConfigurableResource, QueueTuning)
_WarningNumbers: Any = _with_numbers(ConfigurableResource, WarningLimits)


class LoginQueueResource(_QueueNumbers):  # type: ignore[misc]  # made of `QueueTuning`
    """The login queue. At the end of a run, messages that it still holds are released."""

    url: str = Field(description="URL of the SQS queue that login events wait on.")
    dry_run_from_receive: int = Field(
        default=MIN_SUSPECT_RECEIVES,
        description="From this receive on, a message is dry-run in another process first.",
    )
    is_moved: bool = Field(
        default=False,
        description="Whether SQS has reset the send times: the queue is the dead-letter queue of a"
        " FIFO queue.",
    )

    _queue: LoginQueue = PrivateAttr()

    @property
    def dry_run_policy(self) -> DryRunPolicy:
        """Which messages are dry-run."""
        return DryRunPolicy(self.dry_run_from_receive, self.tuning.visibility_seconds)

    @property
    def queue(self) -> LoginQueue:
        """The connection of this run or tick."""
        return self._queue

    @property
    def tuning(self) -> QueueTuning:
        """The numbers by which the queue is read.

        Raises:
            SettingError: two of them do not go together.
        """
        return _numbers(self, QueueTuning).checked()

    @contextmanager
    def yield_for_execution(
        self,
        context: InitResourceContext,  # noqa: ARG002 (Dagster passes it by name)
    ) -> Iterator["LoginQueueResource"]:
        """Connects; at the end releases messages that are neither deleted nor released."""
        disable_core_dumps()
        with connect_queue(QueueSettings.of(self.url, self.tuning)) as queue:
            self._queue = queue
            yield self

    def over(self, queue: LoginQueue) -> ResourceDefinition:
        """The same with a connection that outlives the run, whose end releases what is left."""

        @resource(description="The login queue over the connection of a command.")
        def login_queue(_context: InitResourceContext) -> Iterator["LoginQueueResource"]:
            self._queue = queue
            try:
                yield self
            finally:
                queue.release_or_warn()

        return login_queue

    def __repr__(self) -> str:
        """Only the name of the class: a URL can hold a password."""
        return "LoginQueueResource(...)"

    __str__ = __repr__


class LoginDatabaseResource(ConfigurableResource["LoginDatabaseResource"]):
    """The warehouse that holds user_logins."""

    url: str = Field(description="libpq URL of the warehouse; holds a password.")

    @property
    def database(self) -> LoginDatabase:
        """The warehouse by its URL."""
        return LoginDatabase(self.url)

    def __repr__(self) -> str:
        """Only the name of the class: the URL holds a password."""
        return "LoginDatabaseResource(...)"

    __str__ = __repr__


class MaskingKeysResource(ConfigurableResource["MaskingKeysResource"]):
    """The location of the masking keysets; never the keys themselves."""

    location: str = Field(description="Directory or aws-secretsmanager:// location of the keysets.")
    kms_key: str = Field(default="", description="KMS key that wraps them; empty if none does.")

    _keyring: Keyring | None = PrivateAttr(default=None)

    @property
    def keysets(self) -> Keysets:
        """The keysets at the location.

        Raises:
            KeysetError: the location is malformed, or AWS cannot be reached.
        """
        return keysets_at(self.location, self.kms_key or None)

    @property
    def keyring(self) -> Keyring:
        """The keys, read once, so that a run masks, checks and seals with the same ones.

        Raises:
            KeysetError: a keyset cannot be read.
        """
        if self._keyring is None:
            self._keyring = read_keyring(self.keysets)
        return self._keyring


class WarningLimitsResource(_WarningNumbers):  # type: ignore[misc]  # made of `WarningLimits`
    """The highest normal values of a batch."""

    @property
    def limits(self) -> WarningLimits:
        """The limits of this run."""
        return _numbers(self, WarningLimits)
