"""Where keysets are kept, and how they are read and written.

A location is a directory of files that only their owner can read (a path or a file: URL) or
`aws-secretsmanager://PREFIX`. With a KMS key, what is stored is wrapped under it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.kms import KmsWrapping, is_wrapped, kms_wrapping
from fetch_mask_assets.keys.secrets import SCHEME, keyset_secrets

PRIVATE = 0o600

_ROOT = 0

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+", re.ASCII)
# Source: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
_SECRET_PREFIX = re.compile(r"[\w/+=.@-]{1,480}", re.ASCII)


class KeysetStore(Protocol):
    """A place that keeps texts by the names of keysets."""

    def place(self, name: str) -> str:
        """Where a keyset is, for a person."""

    def read(self, name: str) -> str | None:
        """The text, or None if there is none."""

    def create(self, name: str, text: str) -> None:
        """Stores a text where there is none, and fails where there is one."""

    def replace(self, name: str, text: str) -> None:
        """Stores another text in place of the one there is: all of it, or nothing."""


@dataclass(frozen=True, slots=True)
class Keysets:
    """Keysets in their place; what is read and given here is Tink's JSON, and secret."""

    store: KeysetStore
    wrapping: KmsWrapping | None = None

    def place(self, name: str) -> str:
        """Where a keyset is, for a person."""
        return self.store.place(name)

    def exists(self, name: str) -> bool:
        """Whether there is a keyset, or anything, in its place.

        Raises:
            KeysetError: the place cannot be read.
        """
        return self.store.read(name) is not None

    def read(self, name: str) -> str:
        """A keyset, unwrapped.

        Raises:
            KeysetError: it is missing, cannot be read or unwrapped, can be read by others, or is
                wrapped where it should not be, or the other way round.
        """
        stored = self.store.read(name)
        if stored is None:
            raise KeysetError(
                f"there is no keyset at {self.place(name)}: check MASKING_KEYSETS. Keysets are"
                " never made by a run, because another key would make equal values unequal."
            )
        return self._unwrapped(name, stored)

    def create(self, name: str, keyset: str) -> None:
        """Stores a keyset where there is none.

        Raises:
            KeysetError: there is one, or it cannot be wrapped or written.
        """
        self.store.create(name, self._wrapped(name, keyset))

    def replace(self, name: str, keyset: str) -> None:
        """Stores a keyset in place of the one there is: all of it, or nothing.

        Raises:
            KeysetError: it cannot be wrapped or written; the one there is stays.
        """
        self.store.replace(name, self._wrapped(name, keyset))

    def _wrapped(self, name: str, keyset: str) -> str:
        return keyset if self.wrapping is None else self.wrapping.wrap(name, keyset)

    def _unwrapped(self, name: str, stored: str) -> str:
        if self.wrapping is None:
            if is_wrapped(stored):
                raise KeysetError(
                    f"the keyset of {name} at {self.place(name)} is wrapped: set MASKING_KMS_KEY"
                    " to the KMS key that it is wrapped under."
                )
            return stored
        if not is_wrapped(stored):
            raise KeysetError(
                f"the keyset of {name} at {self.place(name)} is not wrapped, and MASKING_KMS_KEY"
                " is set: unset it, or store the keyset wrapped (docs/keys.md)."
            )
        return self.wrapping.unwrap(name, stored)


@dataclass(frozen=True, slots=True)
class KeysetFiles:
    """A directory of files `NAME.json` that only their owner can read."""

    directory: Path

    def place(self, name: str) -> str:
        """The path of a keyset."""
        return str(self._path(name))

    def read(self, name: str) -> str | None:
        """The text of a file, or None if there is none.

        Raises:
            KeysetError: the file cannot be read, others can read it, or others can put another
                in its place.
        """
        path = self._path(name)
        try:
            with path.open(encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                _refuse_shared(path, status.st_mode)
                _refuse_swappable(path, status.st_uid)
                return file.read()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise KeysetError(
                f"the keyset at {path} cannot be read: {type(error).__name__}."
            ) from None

    def create(self, name: str, text: str) -> None:
        """Writes a new file, and its directory if there is none.

        Raises:
            KeysetError: there is one, or it cannot be written.
        """
        path = self._path(name)
        with _translate_write_errors(path):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_swappable(path, os.geteuid())
            _write_private(path, text)

    def replace(self, name: str, text: str) -> None:
        """Writes a file beside the one there is, then renames it over that one.

        Raises:
            KeysetError: it cannot be written; the one there is stays.
        """
        with _translate_write_errors(self._path(name)):
            path = self._path(name).resolve(strict=True)
            _refuse_swappable(path, path.stat().st_uid)
            unfinished = path.with_name(f".{path.name}.unfinished")
            unfinished.unlink(missing_ok=True)
            try:
                _write_private(unfinished, text, owner=path.stat())
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
            _sync_directory(path.parent)

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.json"


def keysets_at(location: str, kms_key: str | None = None) -> Keysets:
    """The keysets of a location, wrapped under a KMS key (id, ARN or alias) if one is given.

    Raises:
        KeysetError: the location is none, or the AWS settings do not allow it.
    """
    return Keysets(_store(location), None if kms_key is None else kms_wrapping(kms_key))


def read_keyring(keysets: Keysets | Path) -> Keyring:
    """The keyring of keysets; a path is a directory that holds them in the clear.

    Raises:
        KeysetError: one is missing, cannot be read or unwrapped, can be read by others, or is no
            keyset.
    """
    source = Keysets(KeysetFiles(keysets)) if isinstance(keysets, Path) else keysets
    return open_keyring({name: source.read(name) for name in KEYSET_NAMES})


def create_keysets(directory: Path) -> tuple[str, ...]:
    """Makes the keysets that a directory lacks; returns the names of those it made.

    Existing ones are left alone: another keyset would make equal values unequal.

    Raises:
        FileExistsError: another process made one at the same time.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = {name: directory / f"{name}.json" for name in KEYSET_NAMES}
    missing = tuple(name for name, path in paths.items() if not path.exists())
    for name in missing:
        _write_private(paths[name], new_keyset(name))
    return missing


def _store(location: str) -> KeysetStore:
    scheme, colon, rest = location.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        return KeysetFiles(Path(location))
    if scheme == "file":
        return KeysetFiles(Path(unquote(_file_path(rest))))
    if scheme == SCHEME:
        return keyset_secrets(_secret_prefix(rest))
    raise KeysetError(
        f"MASKING_KEYSETS begins with {scheme}:, where no keysets are kept: set it to a"
        f" directory, a file: URL of one, or {SCHEME}://PREFIX."
    )


def _file_path(rest: str) -> str:
    # RFC 8089: file:/path, file:///path and file://localhost/path.
    path = rest.removeprefix("//localhost") if rest.startswith("//localhost/") else rest
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path.startswith("/") or path.startswith("//"):
        raise KeysetError("MASKING_KEYSETS is a file: URL without an absolute path of this host.")
    return path


def _secret_prefix(rest: str) -> str:
    prefix = rest.removeprefix("//").strip("/")
    if not rest.startswith("//") or not _SECRET_PREFIX.fullmatch(prefix):
        raise KeysetError(
            f"MASKING_KEYSETS needs a prefix of secret names after {SCHEME}://, of letters,"
            " digits and /_+=.@- only."
        )
    return prefix


def _refuse_shared(path: Path, mode: int) -> None:
    if stat.S_IMODE(mode) & ~PRIVATE:
        raise KeysetError(
            f"the keyset at {path} has mode {stat.S_IMODE(mode):04o}: others may have read it."
            " It must be 0600 or stricter."
        )


def _refuse_swappable(path: Path, file_owner: int) -> None:
    """Refuses a keyset in whose place somebody else could put another."""
    for directory in {path.parent.resolve(), path.resolve().parent}:
        _refuse_foreign(directory, file_owner)
        _refuse_open(directory, stat.S_IWGRP | stat.S_IWOTH)
        for above in directory.parents:
            _refuse_open(above, stat.S_IWOTH)


def _refuse_foreign(directory: Path, file_owner: int) -> None:
    status = directory.stat()
    # Root may look after the keysets of a service account.
    ours = {os.geteuid(), _ROOT} | ({status.st_uid} if os.geteuid() == _ROOT else set())
    # Of a directory that is not shared, its owner has put every file there.
    owners = {status.st_uid, file_owner} if status.st_mode & stat.S_ISVTX else {status.st_uid}
    if not owners <= ours:
        raise KeysetError(
            f"the keyset directory {directory}, or a keyset in it, belongs to another user, who"
            " could put another keyset in its place: chown it to the user who reads it."
        )


def _refuse_open(directory: Path, others: int) -> None:
    mode = directory.stat().st_mode
    # Where it is sticky, only the owners of a file and of the directory can replace the file.
    if mode & others and not mode & stat.S_ISVTX:
        raise KeysetError(
            f"the directory {directory} has mode {stat.S_IMODE(mode):04o}: others could put"
            " another keyset in the place of one below it. chmod go-w it, and see with `fetch-mask"
            " keys check` whether the keysets are still those that the database knows."
        )


def _write_private(path: Path, text: str, owner: os.stat_result | None = None) -> None:
    # O_EXCL: two processes that make the same keyset must not each believe in their own.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if owner and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                # Root may rotate; who reads the keyset must still be able to.
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise


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
        raise KeysetError(f"there is a keyset at {path} already: it is left as it is.") from None
    except OSError as error:
        raise KeysetError(
            f"the keyset at {path} cannot be written: {type(error).__name__}."
        ) from None
