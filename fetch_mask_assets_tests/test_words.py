"""Help texts, messages, docstrings and documents use plain words and hold no leftovers."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import fetch_mask_assets
from fetch_mask_assets.cli.main import cli

_PRODUCT = Path(fetch_mask_assets.__file__).parent
_ROOT = _PRODUCT.parent
_MODULES = sorted([*_PRODUCT.rglob("*.py"), *_ROOT.glob("benchmarks/**/*.py")])
_SCHEMA = sorted(_PRODUCT.rglob("*.sql"))
# First words of a docstring that does not begin with the thing that it describes.
_NO_SUBJECT = re.compile(r"(What|Whoever|Who|How|Where|Nobody|Somebody)\b")
_DOCUMENTS = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md")])

_LEFTOVERS = re.compile(r"\bXX+\b|\bTODO\b|\bFIXME\b|\bTBD\b|  +|\?\?", re.IGNORECASE)
# The name of a Unix user may stand in quotes.
_RIDDLES = re.compile(
    r"(?<![`\"'])\b(nobody|somebody|whoever|beacons?|outbox|sets? aside|in its turn|said_by"
    r"|take_turn|hold_on|put_back|of_drain|no_values|the_why|gone_on_by)\b(?!['`\"])"
    r"|(?-i:\b_?(MOST|LONGEST|FEWEST|SHORTEST)_[A-Z])",
    re.IGNORECASE,
)


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, f"{path} {name}")


_COMMANDS = dict(_commands(cli, "fetch-mask"))


def _help_texts(command: click.Command) -> list[str]:
    own = [command.help or "", command.epilog or ""]
    options = [getattr(each, "help", None) or "" for each in command.params]
    return [" ".join(text.split()) for text in (*own, *options) if text]


@pytest.mark.parametrize("path", _COMMANDS)
def test_a_help_text_is_made_of_whole_sentences(path: str) -> None:
    texts = _help_texts(_COMMANDS[path])
    first = (_COMMANDS[path].help or "").strip()

    assert first, "a command without help"
    assert not [text for text in texts if not re.search(r"[.)?]$", text)]
    assert not [text for text in texts if not re.match(r"[A-Z0-9\[]", text)]


@pytest.mark.parametrize("path", _COMMANDS)
def test_a_help_text_holds_no_leftover_and_no_riddle(path: str) -> None:
    for text in _help_texts(_COMMANDS[path]):
        assert not _LEFTOVERS.search(text), text
        assert not _RIDDLES.search(text), text


def _raised_texts(module: Path) -> Iterator[str]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args:
                yield from _constants(argument)


def _constants(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_an_error_message_holds_no_leftover_and_no_riddle(module: Path) -> None:
    for text in _raised_texts(module):
        assert not _LEFTOVERS.search(text), text
        assert not _RIDDLES.search(text), text


def _prose(module: Path) -> Iterator[str]:
    """The docstrings and comments of a module, and its names."""
    source = module.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in {tokenize.COMMENT, tokenize.STRING, tokenize.NAME}:
            yield token.string


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_code_and_its_prose_use_plain_words(module: Path) -> None:
    found = [text for text in _prose(module) if _RIDDLES.search(text)]

    assert not found


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_a_docstring_starts_with_what_it_describes(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [
        ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)
    ]

    assert not [text for text in docstrings if _NO_SUBJECT.match(text)]


@pytest.mark.parametrize("path", [*_SCHEMA, *_DOCUMENTS], ids=lambda path: str(path.name))
def test_the_schema_and_the_documents_use_plain_words(path: Path) -> None:
    found = [
        line for line in path.read_text(encoding="utf-8").splitlines() if _RIDDLES.search(line)
    ]

    assert not found
