"""Stored keysets: read, created and replaced, wrapped under a KMS key if one is set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.files import KeysetFiles, write_private
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.kms import KmsWrapping, is_wrapped, kms_wrapping
from fetch_mask_assets.keys.locations import store_at


class KeysetStore(Protocol):
    """Stores texts by keyset name."""

    def location(self, name: str) -> str:
        """Return the path or URL of a keyset, for messages."""

    def read(self, name: str) -> str | None:
        """Return the text, or None if it does not exist."""

    def create(self, name: str, text: str) -> None:
        """Store a new text; fail if one exists."""

    def replace(self, name: str, text: str) -> None:
        """Replace an existing text, completely or not at all."""


@dataclass(frozen=True, slots=True)
class Keysets:
    """The keysets of a store. Texts read and given here are Tink's JSON, and secret."""

    store: KeysetStore
    wrapping: KmsWrapping | None = None

    def location(self, name: str) -> str:
        """Return the path or URL of a keyset, for messages."""
        return self.store.location(name)

    def exists(self, name: str) -> bool:
        """Return whether the store has a text for a keyset, valid or not.

        Raises:
            KeysetError: the store cannot be read.
        """
        return self.store.read(name) is not None

    def read(self, name: str) -> str:
        """Return a keyset, unwrapped.

        Raises:
            KeysetError: it is missing, cannot be read or unwrapped, can be read by other users, or
                is wrapped without a KMS key setting, or the reverse.
        """
        stored = self.store.read(name)
        if stored is None:
            raise KeysetError(
                f"there is no keyset at {self.location(name)}: check MASKING_KEYSETS. Keysets are"
                " never made by a run, because another key would make equal values unequal."
            )
        return self._unwrap(name, stored)

    def create(self, name: str, keyset: str) -> None:
        """Store a new keyset.

        Raises:
            KeysetError: one exists, or it cannot be wrapped or written.
        """
        self.store.create(name, self._wrap(name, keyset))

    def replace(self, name: str, keyset: str) -> None:
        """Replace an existing keyset, completely or not at all.

        Raises:
            KeysetError: it cannot be wrapped or written; the existing keyset did not change.
        """
        self.store.replace(name, self._wrap(name, keyset))

    def _wrap(self, name: str, keyset: str) -> str:
        return keyset if self.wrapping is None else self.wrapping.wrap(name, keyset)

    def _unwrap(self, name: str, stored: str) -> str:
        if self.wrapping is None:
            if is_wrapped(stored):
                raise KeysetError(
                    f"the keyset of {name} at {self.location(name)} is wrapped: set"
                    " MASKING_KMS_KEY to the KMS key that it is wrapped under."
                )
            return stored
        if not is_wrapped(stored):
            raise KeysetError(
                f"the keyset of {name} at {self.location(name)} is not wrapped, and MASKING_KMS_KEY"
                " is set: unset it, or store the keyset wrapped (docs/keys.md)."
            )
        return self.wrapping.unwrap(name, stored)


def keysets_at(location: str, kms_key: str | None = None) -> Keysets:
    """Return the keysets of a location, wrapped if a KMS key (id, ARN or alias) is given.

    Raises:
        KeysetError: the location is invalid, or the AWS settings do not allow a client.
    """
    return Keysets(store_at(location), None if kms_key is None else kms_wrapping(kms_key))


def read_keyring(keysets: Keysets | Path) -> Keyring:
    """Return the keyring of keysets; a path is a directory of unwrapped files.

    Raises:
        KeysetError: one is missing, cannot be read or unwrapped, can be read by other users, or is
            not a keyset.
    """
    source = Keysets(KeysetFiles(keysets)) if isinstance(keysets, Path) else keysets
    return open_keyring({name: source.read(name) for name in KEYSET_NAMES})


def create_keysets(directory: Path) -> tuple[str, ...]:
    """Create the keysets that a directory lacks; return their names.

    Existing ones are not changed: another keyset would make equal values unequal.

    Raises:
        FileExistsError: another process created one at the same time.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = {name: directory / f"{name}.json" for name in KEYSET_NAMES}
    missing = tuple(name for name, path in paths.items() if not path.exists())
    for name in missing:
        write_private(paths[name], new_keyset(name))
    return missing
