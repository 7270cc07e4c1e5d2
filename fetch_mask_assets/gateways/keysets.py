"""Where keysets are kept: a directory of files that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fetch_mask_assets.domain.errors import KeysetError
from fetch_mask_assets.domain.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring

PRIVATE = 0o600


def read_keyring(directory: Path) -> Keyring:
    """The keyring of the keysets in a directory, one `NAME.json` for each.

    Raises:
        KeysetError: a file is missing, cannot be read, can be read by others, or is no keyset.
    """
    return open_keyring({name: _read_private(_path(directory, name)) for name in KEYSET_NAMES})


def create_keysets(directory: Path) -> tuple[str, ...]:
    """Makes the keysets that a directory lacks; returns the names of those it made.

    Existing ones are left alone: another keyset would make equal values unequal.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    missing = tuple(name for name in KEYSET_NAMES if not _path(directory, name).exists())
    for name in missing:
        _write_private(_path(directory, name), new_keyset(name))
    return missing


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name}.json"


def _read_private(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            _refuse_shared(path, os.fstat(file.fileno()).st_mode)
            return file.read()
    except FileNotFoundError:
        raise KeysetError(
            f"there is no keyset at {path}: check MASKING_KEYSETS. Keysets are never made by a"
            " run, because another key would make equal values unequal."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeysetError(f"the keyset at {path} cannot be read: {type(error).__name__}.") from None


def _refuse_shared(path: Path, mode: int) -> None:
    if stat.S_IMODE(mode) & ~PRIVATE:
        raise KeysetError(
            f"the keyset at {path} has mode {stat.S_IMODE(mode):04o}: others may have read it."
            " It must be 0600 or stricter."
        )


def _write_private(path: Path, text: str) -> None:
    # O_EXCL: two processes that make the same keyset must not each believe in their own.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
