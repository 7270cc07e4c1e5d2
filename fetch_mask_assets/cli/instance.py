"""Dagster's instance, apart from the connections: importing Dagster takes seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterInstance


@contextmanager
def dagster_instance() -> Iterator[DagsterInstance]:
    """The instance of DAGSTER_HOME, or one that is gone afterwards where that is not set."""
    with (
        DagsterInstance.get()
        if os.environ.get("DAGSTER_HOME")
        else DagsterInstance.ephemeral() as it
    ):
        yield it
