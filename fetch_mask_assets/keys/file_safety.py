"""Safety of keyset files: private modes, and directories in which only their owner writes.

The checks refuse a keyset that other users may have read, and a directory in which another user
could replace a keyset.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fetch_mask_assets.errors import KeysetError

PRIVATE = 0o600

_ROOT = 0


def require_private(path: Path, mode: int) -> None:
    """Check the mode of a keyset file.

    Raises:
        KeysetError: other users can read it.
    """
    if stat.S_IMODE(mode) & ~PRIVATE:
        raise KeysetError(
            f"the keyset at {path} has mode {stat.S_IMODE(mode):04o}: other users may have read it."
            " The mode must be 0600 or stricter."
        )


def require_safe_directories(path: Path, file_owner: int) -> None:
    """Check the directories of a keyset file: the one of its path, and the one of a link's target.

    Args:
        path: the file, which need not exist.
        file_owner: the user id of its owner.

    Raises:
        KeysetError: another user could replace the file.
    """
    for directory in {path.parent.resolve(), path.resolve().parent}:
        _require_own(directory, file_owner)
        _require_unshared(directory, stat.S_IWGRP | stat.S_IWOTH)
        for parent in directory.parents:
            _require_unshared(parent, stat.S_IWOTH)


def _require_own(directory: Path, file_owner: int) -> None:
    status = directory.stat()
    # Root may read and change the keysets of a service account.
    trusted = {os.geteuid(), _ROOT} | ({status.st_uid} if os.geteuid() == _ROOT else set())
    # Only in a sticky directory can a file be put by another user than the directory's owner.
    owners = {status.st_uid, file_owner} if status.st_mode & stat.S_ISVTX else {status.st_uid}
    if not owners <= trusted:
        raise KeysetError(
            f"the keyset directory {directory}, or a keyset in it, belongs to another user, who"
            " could replace the keyset: chown it to the user who reads it."
        )


def _require_unshared(directory: Path, write_bits: int) -> None:
    mode = directory.stat().st_mode
    # In a sticky directory, only the owners of a file and of the directory can replace the file.
    if mode & write_bits and not mode & stat.S_ISVTX:
        raise KeysetError(
            f"the directory {directory} has mode {stat.S_IMODE(mode):04o}: other users could"
            " replace a keyset below it. Run chmod go-w on it, and check with `fetch-mask keys"
            " check` that the keysets are still those of the database."
        )
