"""The files of the local stack, all of them private to the user."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one checkout's stack."""

    checkout: Path

    @classmethod
    def of(cls, checkout: Path) -> Layout:
        """The layout of a checkout; its paths are absolute, as subprocesses need them."""
        return cls(checkout.resolve())

    @property
    def dotenv(self) -> Path:
        """The settings, at the path that Dagster and the command line read."""
        return self.checkout / ".env"

    @property
    def top(self) -> Path:
        """The directory that holds everything else."""
        return self.checkout / ".fetch-mask"

    @property
    def lock(self) -> Path:
        """The lock of a start or stop."""
        return self.top / "lock"

    @property
    def state(self) -> Path:
        """The ports and the password."""
        return self.top / "state.json"

    @property
    def postgres(self) -> Path:
        """The directory of Postgres, owned by the user that it runs as."""
        return self.top / "postgres"

    @property
    def sqs(self) -> Path:
        """The directory of the SQS server."""
        return self.top / "sqs"

    @property
    def keysets(self) -> Path:
        """The masking keysets."""
        return self.top / "keysets"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance."""
        return self.top / "dagster"


def make_private_directory(directory: Path) -> Path:
    """Makes a directory of mode 0700, also if it exists with another mode."""
    directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    directory.chmod(PRIVATE_DIRECTORY)
    return directory


def write_private_file(path: Path, text: str) -> None:
    """Writes a file that only its owner can read: the whole text or, on failure, the old one."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 (a descriptor, not a path)
        file.write(text)
    unfinished.replace(path)
