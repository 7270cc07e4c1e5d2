"""The search on all cores: the order of its results, and the end of its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from fetch_mask_assets.operations.md5_upgrade.md5 import md5
from fetch_mask_assets.operations.md5_upgrade.search import digest_set
from fetch_mask_assets.operations.md5_upgrade.spaces import IPV4
from fetch_mask_assets.operations.md5_upgrade.spans import Span
from fetch_mask_assets.operations.md5_upgrade.workers import search_spans

if TYPE_CHECKING:
    from pathlib import Path

NET = 10 << 24
"""The number of 10.0.0.0."""


def test_results_of_all_cores_come_in_the_order_of_the_spans() -> None:
    numbers = [NET + 7, NET + 2_000, NET + 3_999]
    targets = digest_set(b"".join(md5(IPV4.text(number)) for number in numbers))
    spans = [Span(NET + start, NET + start + 1_000) for start in range(0, 4_000, 1_000)]
    found = list(search_spans(IPV4, spans, targets, 2))
    assert [span for span, _ in found] == spans
    assert [number for _, some in found for number in some] == numbers


_SEARCH_FOR_EVER = """
from fetch_mask_assets.operations.md5_upgrade.search import digest_set
from fetch_mask_assets.operations.md5_upgrade.spaces import IPV4
from fetch_mask_assets.operations.md5_upgrade.spans import Span
from fetch_mask_assets.operations.md5_upgrade.workers import search_spans
if __name__ == "__main__":
    for _ in search_spans(IPV4, [Span(0, 999)] + [Span(0, 2**26)] * 9, digest_set(bytes(16)), 1):
        print("begun", flush=True)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(_SEARCH_FOR_EVER)
    parent = subprocess.Popen(  # noqa: S603 (our own script)
        [sys.executable, str(script)], stdout=subprocess.PIPE, start_new_session=True
    )
    with parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while _is_alive(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(parent.pid)


def _is_alive(group: int) -> bool:
    """Return whether a process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(_group_and_state(pid) == (group, True) for pid in _pids())


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 (names, not paths)


def _group_and_state(pid: str) -> tuple[int, bool]:
    """Return a process's group, and whether the process is alive and not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123 (not a path of ours)
            state, _, group = file.read().rpartition(")")[2].split()[:3]
    except OSError:
        return (0, False)
    return (int(group), state != "Z")
