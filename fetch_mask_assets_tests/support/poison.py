"""Messages that kill the process that decodes them, in every Python that a test starts.

A process that is forked has no poison in it; a dry run is another interpreter, and has.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from fetch_mask_assets_tests.support.commands import FETCH_MASK
from fetch_mask_assets_tests.support.logins import body

CRASHES = "poison-that-crashes"
HANGS = "poison-that-hangs"
DEVOURS = "poison-that-devours-memory"
RAISES = "poison-that-raises"

_SITE = f"""
import os, signal, time
from fetch_mask_assets.pipeline.contract import message_body

_parse = message_body.parse_object

def parse_object(body):
    if {CRASHES!r} in body:
        os.kill(os.getpid(), signal.SIGSEGV)
    if {HANGS!r} in body:
        time.sleep(3_600)
    if {DEVOURS!r} in body:
        bytearray(4 * 2**30)
    if {RAISES!r} in body:
        raise SystemError(body)
    return _parse(body)

message_body.parse_object = parse_object
"""


def poisoned(number: int, how: str) -> str:
    """A login event that has an effect of its own on whoever decodes it."""
    # The escape has it decoded alone, where the poison works.
    return body(number, user_id=f"{how}-{number}\n")


def python_path(directory: Path) -> str:
    """A PYTHONPATH under which the poison works in each process, children included."""
    site = directory / "poison"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
    return str(site)


def interpreted(
    *arguments: str, env: Mapping[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """`fetch-mask` in an interpreter that starts now, with the poison of its PYTHONPATH."""
    return subprocess.run(  # noqa: S603 (our own program, no shell)
        [FETCH_MASK, *arguments],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
