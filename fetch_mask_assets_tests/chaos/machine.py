"""Faults of the machine that the process runs on: its clock steps, its files turn read-only.

Belongs here: what the process meets without a queue or a database having a part in it, such as the
permissions of its files.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from fetch_mask_assets_tests.chaos.wire import Event, Moment
from fetch_mask_assets_tests.chaos.world import MissingProgramError, World

Bring = Callable[[World, random.Random], None]

_DAY = 24
_PRIVATE = 0o600

# libfaketime 0.9.10 makes an error of the sleep until a moment that Python's is, once it leaves the
# monotonic clock alone.
_PLAIN_SLEEP = """\
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds)
"""


def clock_is_off(step: str) -> Bring:
    """The clock of the process is wrong by `step` (`+1d`, `-1d`) from its start."""

    def bring(world: World, _dice: random.Random) -> None:
        ended = world.run(**_clock(world, step))
        world.must(ended.exit_code == 0, "a run with a wrong clock failed")
        world.must(_hours(world, "start_time", time.time()) == _DAY, "the clock was not off")

    return bring


def clock_steps(step: str) -> Bring:
    """The clock of the process steps in the middle of the copy."""

    def bring(world: World, _dice: random.Random) -> None:
        settings = _clock(world, "+0")

        def steps(_event: Event) -> None:
            Path(settings["FAKETIME_TIMESTAMP_FILE"]).write_text(step)

        world.wire.on(Moment.COPY_DATA, steps, nth=1)
        ended = world.run(**settings)
        world.must(ended.exit_code == 0, "a run whose clock stepped failed")
        world.must(_hours(world, "end_time", time.time()) == _DAY, "the clock did not step")
        world.send(8)

    return bring


def read_only_files(world: World, _dice: random.Random) -> None:
    """Neither Dagster's home nor the temporary directory can be written from the start."""
    world.run()
    world.send(8)
    world.queue.calls.clear()
    _let_write(world, may=False)
    ended = world.run(under=_bound_by_permissions())
    _let_write(world, may=True)
    world.must(ended.exit_code != 0, "a run without a writable file ended well")
    received = world.queue.calls["ReceiveMessage"]
    world.must(not received, f"{received} receives were spent")


def read_only_in_the_copy(world: World, _dice: random.Random) -> None:
    """Dagster's home and the temporary directory turn read-only while a batch is copied."""
    world.wire.on(Moment.COPY_DATA, lambda _event: _let_write(world, may=False), nth=1)
    ended = world.run(under=_bound_by_permissions())
    _let_write(world, may=True)
    world.must(ended.exit_code != 0, "a run that could not be recorded ended well")


def keys_of_mode(mode: int) -> Bring:
    """The files of the keysets have these permissions."""

    def bring(world: World, _dice: random.Random) -> None:
        files = [path for path in world.keysets.rglob("*") if path.is_file()]
        _change(files, mode)
        ended = world.run(under=_bound_by_permissions())
        _change(files, _PRIVATE)
        world.must(ended.exit_code != 0, f"a run with keys of mode {mode:04o} ended well")
        world.must("masking keys" in ended.said, "it is not said what is wrong with the keys")
        received = world.queue.calls["ReceiveMessage"]
        world.must(not received, f"{received} receives were spent")

    return bring


def _change(files: Iterable[Path], mode: int) -> None:
    for path in files:
        path.chmod(mode)


def _clock(world: World, step: str) -> dict[str, str]:
    """Settings that put the clock of a process under a file's control."""
    (world.directory / "sitecustomize.py").write_text(_PLAIN_SLEEP)
    file = world.directory / "clock"
    file.write_text(step)
    return {
        "LD_PRELOAD": _library(),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        # A step of the clock leaves the monotonic one alone.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(world.directory),
    }


def _hours(world: World, column: str, since: float) -> int:
    """How far from a time the first run says that it was, in whole hours."""
    with closing(sqlite3.connect(world.directory / "dagster" / "history" / "runs.db")) as storage:
        [at] = storage.execute(f"SELECT min({column}) FROM runs").fetchone()
    return round(abs(float(at) - since) / 3_600)


def _library() -> str:
    """What the command `faketime` preloads.

    Raises:
        MissingProgramError: there is no such command.
    """
    command = shutil.which("faketime")
    if command is None:
        raise MissingProgramError("faketime")
    asked = [command, "-f", "+0", "printenv", "LD_PRELOAD"]
    done = subprocess.run(asked, stdout=subprocess.PIPE, check=True, text=True)  # noqa: S603 (no input)
    return done.stdout.strip().replace("libfaketime.so", "libfaketimeMT.so")


def _bound_by_permissions() -> tuple[str, ...]:
    """Makes the permissions of files hold for root too."""
    if os.geteuid():
        return ()
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def _let_write(world: World, *, may: bool) -> None:
    for top in ("dagster", "tmp"):
        place = world.directory / top
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if may else 0o555)
