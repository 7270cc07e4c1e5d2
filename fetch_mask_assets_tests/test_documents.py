"""The documents say what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

from fetch_mask_assets import settings
from fetch_mask_assets.cli.main import cli
from fetch_mask_assets.settings import Tuning

_ROOT = Path(__file__).parent.parent
_DOCUMENTS = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md")])
_OPTIONAL = (
    settings.RECOVERY_DATABASE_URL,
    settings.AUDITOR_DATABASE_URL,
    settings.REPORTS_DIRECTORY,
    settings.KMS_KEY,
    settings.DEAD_LETTER_QUEUE_URL,
    settings.ALERT_WEBHOOK,
    settings.ALERT_COMMAND,
    settings.ANALYST_DATABASE_URL,
)
_COMMAND = re.compile(r"fetch-mask((?: [a-z][a-z0-9-]*)+)")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def _names(document: Path) -> list[tuple[str, ...]]:
    blocks = re.findall(r"```sh\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    return [tuple(found.split()) for block in blocks for found in _COMMAND.findall(block)]


def _is_command(words: tuple[str, ...]) -> bool:
    """Whether the words name a command, the last of them perhaps an argument."""
    group: click.Command | None = cli
    context = click.Context(cli)
    for word in words:
        if not isinstance(group, click.Group):
            return True
        group = group.get_command(context, word)
    return group is not None


def test_every_number_has_its_row_with_default_and_bounds() -> None:
    rows = (_ROOT / "docs/settings.md").read_text(encoding="utf-8")
    for each in fields(Tuning):
        facts = each.metadata
        row = (
            f"| `{facts['name']}` | {each.default} | {facts['at_least']} | {facts['at_most']}"
            f" | {facts['meaning']} |"
        )

        assert row in rows


def test_every_place_has_its_row() -> None:
    rows = (_ROOT / "docs/settings.md").read_text(encoding="utf-8")
    names = [*settings.REQUIRED, *_OPTIONAL]

    assert [name for name in names if f"| `{name}` |" not in rows] == []


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_a_document_shows_exists(document: Path) -> None:
    assert [words for words in _names(document) if not _is_command(words)] == []


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_every_link_within_the_repository_leads_somewhere(document: Path) -> None:
    targets = _LINK.findall(document.read_text(encoding="utf-8"))

    assert [name for name in targets if not (document.parent / name).exists()] == []
