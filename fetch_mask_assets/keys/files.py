"""Keysets in a directory of private files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.file_safety import PRIVATE, require_private, require_safe_directories


@dataclass(frozen=True, slots=True)
class KeysetFiles:
    """A directory of files `NAME.json` that only their owner can read."""

    directory: Path

    def location(self, name: str) -> str:
        """Return the path of a keyset."""
        return str(self._path(name))

    def read(self, name: str) -> str | None:
        """Return the text of a file, or None if it does not exist.

        Raises:
            KeysetError: the file cannot be read, other users can read it, or other users could
                replace it.
        """
        path = self._path(name)
        try:
            return _read(path)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise KeysetError(
                f"the keyset at {path} cannot be read: {type(error).__name__}."
            ) from None

    def create(self, name: str, text: str) -> None:
        """Write a new file, and create its directory if needed.

        Raises:
            KeysetError: the file exists, or cannot be written.
        """
        path = self._path(name)
        with _translate_write_errors(path):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_safe_directories(path, os.geteuid())
            write_private(path, text)

    def replace(self, name: str, text: str) -> None:
        """Write a second file, and rename it over the existing one.

        Raises:
            KeysetError: it cannot be written; the existing file did not change.
        """
        with _translate_write_errors(self._path(name)):
            path = self._path(name).resolve(strict=True)
            require_safe_directories(path, path.stat().st_uid)
            _replace(path, text)
            _sync_directory(path.parent)

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.json"


def write_private(path: Path, text: str, owner: os.stat_result | None = None) -> None:
    """Write a new file of mode 0600, or of another owner if one is given.

    Raises:
        FileExistsError: the file exists.
        OSError: it cannot be written; no file is left.
    """
    # O_EXCL: of two processes that create a keyset at once, only one may succeed.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if owner and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                # Root may rotate; the reader of the keyset must still be able to read it.
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise


def _read(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        status = os.fstat(file.fileno())
        require_private(path, status.st_mode)
        require_safe_directories(path, status.st_uid)
        return file.read()


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        write_private(unfinished, text, owner=path.stat())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translate_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise KeysetError(f"a keyset exists at {path} and was not changed.") from None
    except OSError as error:
        raise KeysetError(
            f"the keyset at {path} cannot be written: {type(error).__name__}."
        ) from None
