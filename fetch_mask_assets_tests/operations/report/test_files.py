"""Reports on disk: private, whole, and not for ever."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from fetch_mask_assets.operations.report.files import ReportDirectory, ReportFileError, write_report

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_files_and_their_directory_are_for_their_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "reports"
    paths = ReportDirectory(directory, 3).write(NOON, {"html": "page", "json": "{}"})

    assert mode(directory) == 0o700
    assert [mode(path) for path in paths] == [0o600, 0o600]
    assert [path.read_text(encoding="utf-8") for path in paths] == ["page", "{}"]


def test_the_oldest_reports_go_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "privacy-report-of-ours.html").write_text("keep me")
    files = ReportDirectory(tmp_path, 2)
    for day in (2, 0, 1):
        files.write(NOON + timedelta(days=day), {"html": f"{day}", "json": f"{day}"})

    left = sorted(path.name for path in tmp_path.iterdir())

    assert left == [
        "privacy-report-20260505T120000Z.html",
        "privacy-report-20260505T120000Z.json",
        "privacy-report-20260506T120000Z.html",
        "privacy-report-20260506T120000Z.json",
        "privacy-report-of-ours.html",
    ]
    assert files.newest("json") == "2"


def test_there_is_no_newest_where_there_is_none(tmp_path: Path) -> None:
    assert ReportDirectory(tmp_path / "none", 2).newest("json") is None
    assert ReportDirectory(tmp_path, 2).newest("json") is None


def test_a_write_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    write_report(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportFileError, match="OSError"):
        write_report(path, "new")

    assert path.read_text(encoding="utf-8") == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReportFileError, match="FileNotFoundError"):
        write_report(tmp_path / "nowhere" / "report.html", "page")


def test_a_link_in_the_place_of_a_report_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    path = tmp_path / "report.html"
    path.symlink_to(other)

    write_report(path, "ours")

    assert (other.read_text(), path.is_symlink(), mode(path)) == ("theirs", False, 0o600)
