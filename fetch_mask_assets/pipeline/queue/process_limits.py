"""Limits of this process: no core dumps, bounded memory, first choice of the OOM killer."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path


def disable_core_dumps() -> None:
    """Disables core dumps for this process and its children, for good: they would hold raw values.

    Source: getrlimit(2), RLIMIT_CORE.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def prefer_for_oom_killer() -> None:
    """Makes this process the first that Linux kills when memory runs out.

    Source: proc_pid_oom_score_adj(5).
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def limit_memory(more_bytes: int) -> None:
    """Limits the data of this process to what it has now and so many bytes more; Linux only.

    Source: getrlimit(2), RLIMIT_DATA.
    """
    with suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (used + more_bytes, used + more_bytes))
