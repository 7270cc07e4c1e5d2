"""A raw batch of the messages that are received one after another."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from fetch_mask_assets.pipeline.batch.frames import RAW_SCHEMA
from fetch_mask_assets.pipeline.queue.sqs.delivery import Delivery

MESSAGES_IN_PART = 1_000


class RawFrames:
    """The received messages as a frame for each thousand, so that their bodies are held once.

    Python's strings of a whole batch would be held beside its frame.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self._frames = [RAW_SCHEMA.to_frame()]
        self._rest: list[Delivery] = []

    def extend(self, deliveries: Iterable[Delivery]) -> None:
        """Adds messages; without a lock of its own."""
        self._rest.extend(deliveries)
        if len(self._rest) >= MESSAGES_IN_PART:
            self._frames.append(_frame(self._rest))
            self._rest = []

    def whole(self) -> pl.DataFrame:
        """All messages as a frame of `RAW_SCHEMA`, in the order in which they were added."""
        return pl.concat([*self._frames, _frame(self._rest)], rechunk=True)


def _frame(deliveries: Iterable[Delivery]) -> pl.DataFrame:
    columns = {name: [getattr(each, name) for each in deliveries] for name in RAW_SCHEMA}
    return pl.DataFrame(columns).cast(RAW_SCHEMA)
