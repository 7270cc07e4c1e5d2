"""Crash dumps are off wherever raw values are in memory."""

from __future__ import annotations

import subprocess
import sys

_ASK = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"


def test_a_process_that_forbids_them_and_its_children_leave_none() -> None:
    code = (
        "import subprocess, sys;"
        "from fetch_mask_assets.pipeline.queue.process_limits import disable_core_dumps;"
        f"disable_core_dumps(); subprocess.run([sys.executable, '-c', {_ASK!r}], check=True)"
    )
    done = subprocess.run(  # noqa: S603 (our own program, no shell)
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout == "(0, 0)\n"
