"""A scratch copy of the package whose declaration has a clear and two masked fields more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import fetch_mask_assets

_FIELDS_END = '\n)\n"""In the order in which'
_ADDED = """
    ClearField(
        name="os_version",
        max_length=32,
        description="The version of the operating system, or null.",
        is_required=False,
    ),
    MaskedField(
        name="session_id",
        max_length=64,
        form=TEXT,
        label="session id",
        singular="session",
        plural="sessions",
    ),
    MaskedField(
        name="household_id",
        max_length=64,
        form=TEXT,
        label="household id",
        singular="household",
        plural="households",
        is_required=False,
    ),"""


def scratch_copy(directory: Path) -> Path:
    """Copies the package into a directory and adds the fields; returns the directory."""
    package = Path(fetch_mask_assets.__file__).parent
    copy = directory / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    declaration = copy / "masking" / "fields.py"
    before, end, after = declaration.read_text(encoding="utf-8").partition(_FIELDS_END)
    assert end, "the declaration does not end as it did"
    declaration.write_text(before + _ADDED + end + after, encoding="utf-8")
    return directory


def run_scenario(directory: Path, scenario: Path) -> subprocess.CompletedProcess[str]:
    """Runs the tests of a file with the copy in the place of the package."""
    # Appended, so that the checkout does not come before the copy.
    options = ("--import-mode=append", "--quiet", "-p", "no:cacheprovider")
    return subprocess.run(  # noqa: S603 (this Python and these tests)
        [sys.executable, "-P", "-m", "pytest", *options, str(scenario)],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(directory), "SCRATCH_COPY": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
