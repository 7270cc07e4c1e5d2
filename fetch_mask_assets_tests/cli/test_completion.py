"""Shells complete the words of `fetch-mask`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_COMMAND = Path(sys.executable).with_name("fetch-mask")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_of_its_own(shell: str) -> None:
    script = subprocess.run(  # noqa: S603 (our own command)
        [_COMMAND, "completion", shell], check=True, capture_output=True, text=True
    ).stdout

    assert f"_FETCH_MASK_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("fetch-mask rem", ["remask"]), ("fetch-mask keys r", ["restore", "retire", "rotate"])],
)
def test_bash_completes_commands_and_their_subcommands(typed: str, offered: list[str]) -> None:
    bash = shutil.which("bash")
    assert bash
    words = typed.split()
    lines = [
        f'eval "$({_COMMAND} completion bash)"',
        f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}",
        f"_fetch_mask_completion {_COMMAND}",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]

    completed = subprocess.run(  # noqa: S603 (the script that our own command printed)
        [bash, "-c", "\n".join(lines)],
        check=True,
        capture_output=True,
        text=True,
        env=dict(os.environ, PATH=f"{_COMMAND.parent}:{os.environ['PATH']}"),
    )

    assert sorted(completed.stdout.split()) == offered
