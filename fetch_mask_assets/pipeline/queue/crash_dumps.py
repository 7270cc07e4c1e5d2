"""No crash dump: it would hold the raw batch that the process had in memory."""

from __future__ import annotations

import resource


def disable_core_dumps() -> None:
    """Lets neither this process nor its children write a core file, and not change that again.

    Source: getrlimit(2), RLIMIT_CORE.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
