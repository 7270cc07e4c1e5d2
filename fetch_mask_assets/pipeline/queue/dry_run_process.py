"""The process of a dry run: masks bodies from standard input; any error ends it.

Each line of input is a JSON array of bodies. The process answers with one byte when it is ready,
and with one more for each line that it has masked.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.pipeline.batch.checked_batch import mask_and_check
from fetch_mask_assets.pipeline.batch.frames import RAW_SCHEMA
from fetch_mask_assets.pipeline.queue.process_limits import (
    disable_core_dumps,
    limit_memory,
    prefer_for_oom_killer,
)

UNIT_SECONDS = 10
"""A line that takes longer ends the process."""

MEMORY_BYTES = 512 * 2**20
"""Memory for masking; a line is at most 4 MiB, or one body."""


def main() -> None:
    """Masks line after line."""
    disable_core_dumps()
    # The run's own process must outlive this one.
    prefer_for_oom_killer()
    keyring = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    _mask(["{}"], keyring)
    limit_memory(MEMORY_BYTES)
    _answer()
    for line in sys.stdin.buffer:
        # By default this signal ends the process.
        signal.alarm(UNIT_SECONDS)
        _mask(json.loads(line), keyring)
        signal.alarm(0)
        _answer()


def _answer() -> None:
    sys.stdout.buffer.write(b".")
    sys.stdout.buffer.flush()


def _mask(bodies: Sequence[str], keyring: Keyring) -> None:
    """Does all that a run does with a body."""
    now = datetime.now(UTC)
    rows = [(str(number), now, 1, body) for number, body in enumerate(bodies)]
    batch = mask_and_check(pl.DataFrame(rows, schema=RAW_SCHEMA, orient="row"), keyring)
    batch_links(batch.masked, keyring)


if __name__ == "__main__":
    main()
