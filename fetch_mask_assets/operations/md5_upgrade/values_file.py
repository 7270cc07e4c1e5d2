"""The file of known values for `upgrade-md5 --values`: raw values, so it must be private."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fetch_mask_assets.errors import FetchMaskError


class ValuesFileError(FetchMaskError):
    """A file of values cannot be used. The message carries no value."""


def read_values(path: Path) -> Iterator[str]:
    """Yield the lines of a private file, without the empty ones.

    Raises:
        ValuesFileError: the file cannot be read, other users can read it, or a line is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            _require_private(path, os.fstat(file.fileno()).st_mode)
            for number, line in enumerate(file, start=1):
                if value := line.rstrip(b"\r\n"):
                    yield _decode(number, value)
    except OSError as error:
        raise ValuesFileError(f"{path} cannot be read: {type(error).__name__}.") from None


def _require_private(path: Path, mode: int) -> None:
    if stat.S_IMODE(mode) & ~0o600:
        raise ValuesFileError(
            f"{path} has mode {stat.S_IMODE(mode):04o}: other users can read the values in it. The"
            " mode must be 0600 or stricter."
        )


def _decode(number: int, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValuesFileError(f"line {number} of the values is not UTF-8.") from None
