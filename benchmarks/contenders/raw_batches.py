"""Raw batches as frames, without a queue."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from uuid import uuid4

import polars as pl

from benchmarks.contenders.settings import batch_messages
from benchmarks.queue.messages import body
from fetch_mask_assets.pipeline.batch.frames import RAW_SCHEMA


def raw_batches() -> Iterator[pl.DataFrame]:
    """Frames of `RAW_SCHEMA`, each with new messages and new values."""
    messages = batch_messages()
    for first in count(0, messages):
        columns = {
            "message_id": [str(uuid4()) for _ in range(messages)],
            "sent_at": [datetime.now(UTC)] * messages,
            "receive_count": [1] * messages,
            "body": [body(number) for number in range(first, first + messages)],
        }
        yield pl.DataFrame(columns, schema=RAW_SCHEMA)
