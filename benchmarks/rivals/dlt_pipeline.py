"""A dlt pipeline: a resource that reads SQS, masked by HMAC-SHA256, to the Postgres destination.

It has no state to keep between loads. The files are CSV, which dlt loads by COPY. The messages are
deleted once `run` has returned.
Source: https://dlthub.com/docs/dlt-ecosystem/destinations/postgres
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial

import dlt

from benchmarks.rivals.logins import as_records
from benchmarks.rivals.sqs import Message, Queue

_THREADS = 4


def load(queue: Queue, pipeline: dlt.Pipeline, limit: int) -> int:
    """Loads one batch; returns the number of its messages."""
    received: list[Message] = []

    def logins() -> Iterator[list[dict[str, object]]]:
        received.extend(queue.receive(limit))
        yield as_records(received)

    resource = dlt.resource(logins, name="user_logins", write_disposition="append")
    pipeline.run(resource, loader_file_format="csv").raise_on_failed_jobs()
    queue.delete(received)
    return len(received)


def rounds() -> Iterator[Callable[[], int]]:
    """A batch at a time, with one queue and one pipeline."""
    queue, limit = Queue(_THREADS), int(os.environ["LOGIN_BATCH_MESSAGES"])
    destination = dlt.destinations.postgres(os.environ["LOGIN_DATABASE_URL"])
    with tempfile.TemporaryDirectory() as directory:
        pipeline = dlt.pipeline(
            "logins", pipelines_dir=directory, destination=destination, dataset_name="logins"
        )
        while True:
            yield partial(load, queue, pipeline, limit)
