"""Dagster's instance, apart from the connections: importing Dagster takes seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterInstance

from fetch_mask_assets.defs.check_history import STORAGE_ERRORS
from fetch_mask_assets.domain.errors import FetchMaskError


class InstanceError(FetchMaskError):
    """Dagster's instance cannot be used."""


@contextmanager
def dagster_instance() -> Iterator[DagsterInstance]:
    """The instance of DAGSTER_HOME, or one that is gone afterwards where that is not set.

    Raises:
        InstanceError: its storage cannot be used.
    """
    with _open() as instance:
        yield instance


def _open() -> DagsterInstance:
    if not os.environ.get("DAGSTER_HOME"):
        return DagsterInstance.ephemeral()
    try:
        return DagsterInstance.get()
    except STORAGE_ERRORS as error:
        raise InstanceError(
            f"Dagster's storage cannot be used ({type(error).__name__}): check DAGSTER_HOME, its"
            " dagster.yaml and its database."
        ) from None
