"""State of a checkout's stack that lasts: its ports and its password."""

from __future__ import annotations

import json
import secrets
import socket
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fetch_mask_assets.local_stack.errors import LocalStackError
from fetch_mask_assets.local_stack.layout import write_private_file

LOOPBACK = "127.0.0.1"

# Below the ports of outgoing connections on Linux, so that none of those takes a saved port.
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 100
_RELEASE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class State:
    """The ports and the password of one checkout's stack."""

    postgres_port: int
    sqs_port: int
    postgres_password: str = field(repr=False)


def new_state() -> State:
    """Two free ports and a random password."""
    postgres_port = free_port()
    return State(postgres_port, free_port(other_than=postgres_port), secrets.token_urlsafe(24))


def load_state(path: Path) -> State | None:
    """The saved state; None if there is none.

    Raises:
        LocalStackError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return State(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise LocalStackError(
            f"{path} cannot be read as the local stack's state: restore it, or remove the"
            " directory around it, with the local data in it."
        ) from None


def save_state(path: Path, state: State) -> None:
    """Saves the state."""
    write_private_file(path, json.dumps(asdict(state)))


def with_free_ports(state: State, *, postgres_runs: bool, sqs_runs: bool) -> State:
    """The state, with a new port for each one that another program has taken."""
    if not postgres_runs and not _is_free_soon(state.postgres_port):
        state = replace(state, postgres_port=free_port(other_than=state.sqs_port))
    if not sqs_runs and not _is_free_soon(state.sqs_port):
        state = replace(state, sqs_port=free_port(other_than=state.postgres_port))
    return state


def free_port(*, other_than: int = 0) -> int:
    """A loopback port that nothing listens on.

    Raises:
        LocalStackError: a hundred random ports were all taken.
    """
    for _ in range(_PORT_TRIES):
        port = secrets.choice(_PORTS)
        if port != other_than and is_free(port):
            return port
    raise LocalStackError(
        f"No free port was found on {LOOPBACK} from {_PORTS.start} to {_PORTS.stop}:"
        " stop something that listens there."
    )


def is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket() as listener:
        # As the servers do: a closing connection does not block the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _is_free_soon(port: int) -> bool:
    # A server that was killed a moment ago may not have released it yet.
    deadline = time.monotonic() + _RELEASE_SECONDS
    while not is_free(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_free(port)
