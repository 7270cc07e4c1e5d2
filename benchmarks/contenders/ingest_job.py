"""The job ingest_logins in a warm process, as a run of the sensor executes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from dagster import DagsterInstance

from fetch_mask_assets.cli.instance import dagster_instance
from fetch_mask_assets.definitions import defs
from fetch_mask_assets.defs.jobs import INGEST_LOGINS
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def rounds() -> Iterator[Callable[[], int]]:
    """One run of the job at a time, with Dagster's storage of DAGSTER_HOME."""
    database = LoginDatabase(os.environ["LOGIN_DATABASE_URL"])
    with dagster_instance() as instance:

        def run() -> int:
            return _run(instance, database)

        while True:
            yield run


def _run(instance: DagsterInstance, database: LoginDatabase) -> int:
    job = defs.resolve_job_def(INGEST_LOGINS)
    result = job.execute_in_process(instance=instance, run_config=_QUIET)
    counts = database.batch_counts(result.run_id)
    return counts.balance.loaded if counts else 0
