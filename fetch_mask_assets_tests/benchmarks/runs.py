"""Runs of the benchmarks with few messages, as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.processes import CHECKOUT
from fetch_mask_assets.local_stack.stack import Stack

MESSAGES = 200
FEW = ("--messages", str(MESSAGES), "--repeats", "1")


def measured(stack: Stack, directory: Path, module: str, *options: str) -> Any:  # noqa: ANN401 (JSON)
    """The figures of a run as JSON."""
    file = directory / "measured.json"
    run(stack, module, *options, "--json", str(file))
    return json.loads(file.read_text(encoding="utf-8"))


def run(stack: Stack, module: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a benchmark against the server of a stack; it must succeed."""
    done = subprocess.run(  # noqa: S603 (our own module, no shell)
        [sys.executable, "-m", module, *options],
        env={**os.environ, **stack.environment},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
