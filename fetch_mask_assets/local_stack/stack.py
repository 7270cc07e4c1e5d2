"""The local stack as a whole: start, stop and status."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from filelock import FileLock, Timeout

from fetch_mask_assets.keys.storage import create_keysets
from fetch_mask_assets.local_stack import environment as env
from fetch_mask_assets.local_stack import postgres, sqs
from fetch_mask_assets.local_stack.errors import LocalStackError
from fetch_mask_assets.local_stack.layout import (
    PRIVATE_FILE,
    Layout,
    make_private_directory,
    write_private_file,
)
from fetch_mask_assets.local_stack.state import (
    State,
    load_state,
    new_state,
    save_state,
    with_free_ports,
)
from fetch_mask_assets.postgres.migrate import upgrade

_LOCK_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack and the settings that point at it."""

    layout: Layout
    state: State
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The status of one server: its name, whether it runs, and its loopback port."""

    name: str
    is_running: bool
    port: int | None


def up(checkout: Path) -> Stack:
    """Starts the servers that do not run, creates what is missing, and writes `.env`.

    Raises:
        LocalStackError: a part of it cannot be started; names it and the remedy.
    """
    layout = Layout.of(checkout)
    env.refuse_remote(layout.dotenv)
    with _locked(layout):
        state = _state(layout)
        sqs.start(layout.sqs, state)
        postgres.start(layout.postgres, state)
        stack = Stack(layout, state, env.environment(layout, state))
        _set_up(stack)
        return stack


def down(checkout: Path, *, delete: bool) -> None:
    """Stops the servers; the data stays unless `delete` is given.

    Raises:
        LocalStackError: a server does not stop.
    """
    layout = Layout.of(checkout)
    if not layout.top.exists():
        return
    with _locked(layout):
        sqs.stop_server(layout.sqs)
        postgres.stop_server(layout.postgres)
        if delete:
            _delete(layout)


def status(checkout: Path) -> tuple[ServiceStatus, ...]:
    """The status of each server."""
    layout = Layout.of(checkout)
    state = load_state(layout.state)
    ports = (state.postgres_port, state.sqs_port) if state else (None, None)
    running = (postgres.is_running(layout.postgres), sqs.is_running(layout.sqs))
    return tuple(map(ServiceStatus, ("Postgres", "SQS"), running, ports))


def is_up(checkout: Path) -> bool:
    """Return whether all servers run."""
    return all(service.is_running for service in status(checkout))


def _state(layout: Layout) -> State:
    state = with_free_ports(
        load_state(layout.state) or new_state(),
        postgres_runs=postgres.is_running(layout.postgres),
        sqs_runs=sqs.is_running(layout.sqs),
    )
    save_state(layout.state, state)
    return state


def _set_up(stack: Stack) -> None:
    layout, state = stack.layout, stack.state
    sqs.create_queues(sqs.client(state))
    postgres.create_databases(state, (env.LOGINS, env.DAGSTER))
    upgrade(postgres.url(state, env.LOGINS))
    create_keysets(make_private_directory(layout.keysets))
    _set_up_dagster(layout.dagster_home)
    env.write_dotenv(layout.dotenv, stack.environment)


def _set_up_dagster(home: Path) -> None:
    make_private_directory(home)
    source = files("fetch_mask_assets.local_stack") / "dagster.yaml"
    write_private_file(home / "dagster.yaml", source.read_text(encoding="utf-8"))


def _delete(layout: Layout) -> None:
    # The settings first: without them nothing points at what is being deleted.
    if layout.dotenv.exists():
        env.clear_dotenv(layout.dotenv, env.NAMES)
    shutil.rmtree(layout.top)


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    make_private_directory(layout.top)
    lock = FileLock(layout.lock, timeout=_LOCK_SECONDS, mode=PRIVATE_FILE)
    try:
        lock.acquire()
    except Timeout:
        raise LocalStackError(
            f"Another command has been starting or stopping this stack for {_LOCK_SECONDS}"
            " seconds: wait for it to end, then try again."
        ) from None
    try:
        # The command that had the lock before may have deleted the directory.
        make_private_directory(layout.top)
        yield
    finally:
        lock.release()
