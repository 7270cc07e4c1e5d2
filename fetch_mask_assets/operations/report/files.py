"""Reports as files that only their owner can read, written atomically."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fetch_mask_assets.errors import FetchMaskError

_PRIVATE_DIRECTORY = 0o700
_OURS = re.compile(r"privacy-report-\d{8}T\d{6}Z\.(?:html|json)")


class ReportFileError(FetchMaskError):
    """A report cannot be written or read; names the path and the kind of error."""


def write_report(path: Path, text: str) -> None:
    """Writes a file of mode 0600 atomically; replaces an existing one.

    Raises:
        ReportFileError: nothing was written.
    """
    try:
        _replace(path, text)
    except OSError as error:
        raise _refused(path, error) from None


@dataclass(frozen=True, slots=True)
class ReportDirectory:
    """A directory of mode 0700 that keeps the newest reports."""

    path: Path
    keep: int

    def write(self, at: datetime, texts: Mapping[str, str]) -> tuple[Path, ...]:
        """Writes a report, a file for each suffix, and deletes reports beyond the number to keep.

        Raises:
            ReportFileError: not all of it was written.
        """
        stem = f"privacy-report-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        paths = {self.path / f"{stem}.{suffix}": text for suffix, text in texts.items()}
        try:
            self.path.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            self.path.chmod(_PRIVATE_DIRECTORY)
            for path, text in paths.items():
                _replace(path, text)
            self._delete_old()
        except OSError as error:
            raise _refused(self.path, error) from None
        return tuple(paths)

    def newest(self, suffix: str) -> str | None:
        """The text of the newest report, or None if there is none.

        Raises:
            ReportFileError: it cannot be read.
        """
        try:
            names = [name for name in self._names() if name.endswith(f".{suffix}")]
            return (self.path / names[-1]).read_text(encoding="utf-8") if names else None
        except (OSError, UnicodeDecodeError) as error:
            raise ReportFileError(
                f"the last report in {self.path} cannot be read ({type(error).__name__})."
            ) from None

    def _delete_old(self) -> None:
        names = self._names()
        stems = sorted({name.partition(".")[0] for name in names})[: -self.keep]
        for name in names:
            if name.partition(".")[0] in stems:
                (self.path / name).unlink(missing_ok=True)

    def _names(self) -> list[str]:
        """The names of report files, the oldest first."""
        if not self.path.exists():
            return []
        return sorted(each.name for each in self.path.iterdir() if _OURS.fullmatch(each.name))


def _replace(path: Path, text: str) -> None:
    # mkstemp makes it 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".privacy-report-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _refused(path: Path, error: OSError) -> ReportFileError:
    return ReportFileError(
        f"{path} cannot be written ({type(error).__name__}): check that its directory exists and"
        " is yours, and that the disk has room."
    )
