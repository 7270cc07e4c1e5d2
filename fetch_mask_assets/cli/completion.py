"""`fetch-mask completion`.

Source: https://click.palletsprojects.com/en/stable/shell-completion/
"""

from __future__ import annotations

from collections.abc import Mapping

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_SHELLS: Mapping[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of fetch-mask for SHELL.

    \b
    bash, 4.4 or newer, in ~/.bashrc:  eval "$(fetch-mask completion bash)"
    zsh, in ~/.zshrc:                  eval "$(fetch-mask completion zsh)"
    fish, in ~/.config/fish:           fetch-mask completion fish | source

    A new shell then completes commands and options.
    """  # noqa: D301 (marks of click)
    root = context.find_root().command
    click.echo(_SHELLS[shell](root, {}, "fetch-mask", "_FETCH_MASK_COMPLETE").source())
