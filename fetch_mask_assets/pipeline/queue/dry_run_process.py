"""The process that tries messages: it masks what comes on standard input, or dies of it.

Each line is a JSON array of bodies. It answers with one byte when it is ready, and with one more
for each line that it has masked; whatever is wrong with a line ends it.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.pipeline.batch.frames import RAW_SCHEMA, mask_batch
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch
from fetch_mask_assets.pipeline.batch.masking_rules import (
    broken_rules,
    quarantine_violations,
)
from fetch_mask_assets.pipeline.queue.crash_dumps import disable_core_dumps

UNIT_SECONDS = 10
"""A line that takes longer hangs."""

MEMORY_BYTES = 512 * 2**20
"""What masking may take beyond what the process needs by itself; a line is 4 MiB or one body."""


def main() -> None:
    """Masks line after line."""
    disable_core_dumps()
    _be_killed_first()
    keyring = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    _mask(["{}"], keyring)
    _limit_memory()
    _answer()
    for line in sys.stdin.buffer:
        # By default the signal ends the process, wherever it hangs.
        signal.alarm(UNIT_SECONDS)
        _mask(json.loads(line), keyring)
        signal.alarm(0)
        _answer()


def _answer() -> None:
    sys.stdout.buffer.write(b".")
    sys.stdout.buffer.flush()


def _mask(bodies: Sequence[str], keyring: Keyring) -> None:
    """All that a run does with a body in its own process."""
    now = datetime.now(UTC)
    lines = [(str(number), "", now, 1, body) for number, body in enumerate(bodies)]
    raw = pl.DataFrame(lines, schema=RAW_SCHEMA, orient="row")
    masked = quarantine_violations(MaskedBatch(raw, mask_batch(raw, keyring), keyring))
    broken_rules(MaskedBatch(raw, masked, keyring))
    batch_links(masked, keyring)


def _be_killed_first() -> None:
    # Source: proc_pid_oom_score_adj(5). The run's own process must outlive this one.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _limit_memory() -> None:
    # Source: getrlimit(2), RLIMIT_DATA; where the system has no /proc, there is no limit.
    with suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY_BYTES, used + MEMORY_BYTES))


if __name__ == "__main__":
    main()
