"""Receives a batch by the product's queue and deletes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from fetch_mask_assets.pipeline.queue.limits import DrainLimits
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue, QueueSettings, connect_queue
from fetch_mask_assets.settings import Tuning


def rounds() -> Iterator[Callable[[], int]]:
    """A batch at a time, with one connection and the settings of the environment."""
    tuning = Tuning.from_environment(os.environ)
    with connect_queue(QueueSettings.of(os.environ["LOGIN_QUEUE_URL"], tuning)) as queue:
        while True:
            yield partial(_receive_and_delete, queue, DrainLimits.of(tuning))


def _receive_and_delete(queue: LoginQueue, limits: DrainLimits) -> int:
    raw = queue.receive(limits).raw
    return queue.delete(raw["message_id"]).succeeded
