"""The database, the queues and the keysets that the environment names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fetch_mask_assets import settings
from fetch_mask_assets.keys.storage import Keysets, keysets_at
from fetch_mask_assets.operations.alerts.destinations import AlertDestinations
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue, QueueSettings, connect_queue
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.settings import Tuning


def database() -> LoginDatabase:
    """The warehouse.

    Raises:
        SettingError: LOGIN_DATABASE_URL is not set.
    """
    return LoginDatabase(settings.required(os.environ, settings.DATABASE_URL))


def recovery_database() -> LoginDatabase:
    """The warehouse with the recovery role.

    Raises:
        SettingError: neither LOGIN_RECOVERY_DATABASE_URL nor LOGIN_DATABASE_URL is set.
    """
    return LoginDatabase(settings.recovery_database_url(os.environ))


def auditor_database() -> LoginDatabase:
    """The warehouse with the role that makes reports.

    Raises:
        SettingError: no database is set.
    """
    return LoginDatabase(settings.required(os.environ, settings.auditor_setting(os.environ)))


def keysets() -> Keysets:
    """The keysets in a directory or in AWS Secrets Manager.

    Raises:
        SettingError: MASKING_KEYSETS is not set.
        KeysetError: it is not a location of keysets, or AWS cannot be reached.
    """
    location = settings.required(os.environ, settings.KEYSETS)
    return keysets_at(location, settings.kms_key(os.environ))


def alert_destinations() -> AlertDestinations:
    """The destinations of alerts.

    Raises:
        SettingError: a destination is malformed.
    """
    return AlertDestinations(settings.alert_webhook(os.environ), settings.alert_command(os.environ))


def tuning() -> Tuning:
    """The numbers of this deployment.

    Raises:
        SettingError: one is out of its bounds.
    """
    return Tuning.from_environment(os.environ)


def dead_letter_queue_url(login_queue: LoginQueue) -> str | None:
    """The URL of the dead-letter queue, by the setting or by the redrive policy.

    Returns:
        None if there is neither.

    Raises:
        QueueError: the login queue cannot be read, or names a queue that does not exist.
    """
    url = settings.dead_letter_queue_url(os.environ)
    if url:
        return url
    policy = login_queue.retention().redrive
    return login_queue.dead_letter_url(policy) if policy else None


@contextmanager
def queue(url: str | None = None) -> Iterator[LoginQueue]:
    """The login queue, or another one that holds login events, by its URL.

    Raises:
        SettingError: LOGIN_QUEUE_URL is not set.
        QueueError: the AWS settings do not allow a client to be made.
    """
    where = url or settings.required(os.environ, settings.QUEUE_URL)
    with connect_queue(QueueSettings.of(where, tuning())) as connected:
        yield connected
