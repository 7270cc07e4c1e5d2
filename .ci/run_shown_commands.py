"""Runs the commands that a document shows, in their order, and fails with the first that fails.

A command is a line of a fenced `sh` block. `make dev` and `dagster dev` run until they are
stopped: they are started, asked for their page, and stopped with Ctrl-C's signal.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from served_page import START_SECONDS, wait_for_page

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_URL = re.compile(r"http://127\.0\.0\.1:\d+")
_SERVERS = ("make dev", "dagster dev")
_RUN_BY_CI = ("make test",)


def shown_commands(document: str) -> list[str]:
    """The commands of a document; a line that ends in a backslash goes on."""
    blocks = "".join(_BLOCK.findall(document)).replace("\\\n", " ")
    lines = (line.split("  #")[0].strip() for line in blocks.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def run(command: str, environment: dict[str, str]) -> None:
    """Runs one command to its end, or a server until it answers."""
    print(f"$ {command}", flush=True)
    if command.startswith(_SERVERS):
        _serve(command, environment)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, env=environment)


def _serve(command: str, environment: dict[str, str]) -> None:
    # A session of its own, so that the signal reaches what the shell started, and nothing else.
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        _wait_for_page(server)
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=START_SECONDS)


def _wait_for_page(server: subprocess.Popen[str]) -> None:
    for line in server.stdout or ():
        print(f"  {line}", end="", flush=True)
        found = _URL.search(line)
        if found and "erving" in line:
            return wait_for_page(found[0])
    raise SystemExit("the server ended before it served a page")


def main() -> None:
    """Runs the commands of each document named, but those that CI runs anyway."""
    environment = dict(os.environ, PATH=f"{Path('.venv/bin').resolve()}:{os.environ['PATH']}")
    for name in sys.argv[1:]:
        for command in shown_commands(Path(name).read_text(encoding="utf-8")):
            if command not in _RUN_BY_CI:
                run(command, environment)


if __name__ == "__main__":
    main()
