"""The settings that point the pipeline at the local stack, kept in the checkout's `.env`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from fetch_mask_assets import settings
from fetch_mask_assets.local_stack import postgres, sqs
from fetch_mask_assets.local_stack.errors import LocalStackError
from fetch_mask_assets.local_stack.layout import Layout, write_private_file
from fetch_mask_assets.local_stack.state import LOOPBACK, State

LOGINS = "logins"
DAGSTER = "dagster"

# Short waits and few runs for one machine; a user's own value of one of these is kept.
TUNING: Mapping[str, str] = {
    "LOGIN_VISIBILITY_SECONDS": "60",
    "LOGIN_RECEIVE_WAIT_SECONDS": "1",
    "LOGIN_MAX_RUNS": "2",
}

NAMES = (
    settings.QUEUE_URL,
    settings.DATABASE_URL,
    settings.KEYSETS,
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "DAGSTER_HOME",
    "DAGSTER_POSTGRES_URL",
    *TUNING,
)

_PLAIN = re.compile(r"[\w@%+=:,./-]*", re.ASCII)


def environment(layout: Layout, state: State) -> dict[str, str]:
    """Every setting of the local stack."""
    return {
        settings.QUEUE_URL: sqs.queue_url(state),
        settings.DATABASE_URL: postgres.url(state, LOGINS),
        settings.KEYSETS: str(layout.keysets),
        "AWS_ENDPOINT_URL": sqs.endpoint(state),
        "AWS_DEFAULT_REGION": sqs.REGION,
        "AWS_ACCESS_KEY_ID": sqs.CREDENTIAL,
        "AWS_SECRET_ACCESS_KEY": sqs.CREDENTIAL,
        "DAGSTER_HOME": str(layout.dagster_home),
        # SQLAlchemy takes the plain scheme for psycopg 3, which Dagster's storage cannot use.
        "DAGSTER_POSTGRES_URL": postgres.url(state, DAGSTER, "postgresql+psycopg2"),
        **TUNING,
    }


def merged(text: str, ours: Mapping[str, str]) -> str:
    """The text of a `.env` with our settings; all other lines stay unchanged."""
    kept = {name: value for name, value in _values(text).items() if name in TUNING}
    rest = without(text, ours)
    gap = "" if not rest or rest.endswith("\n") else "\n"
    lines = (f"{name}={_quoted(value)}\n" for name, value in {**ours, **kept}.items())
    return rest + gap + "".join(lines)


def without(text: str, names: Iterable[str]) -> str:
    """The text of a `.env` without these settings."""
    bindings = parse_stream(StringIO(text))
    return "".join(each.original.string for each in bindings if each.key not in set(names))


def write_dotenv(path: Path, ours: Mapping[str, str]) -> None:
    """Puts our settings into a `.env`, which only its owner can read then."""
    write_private_file(path, merged(_text(path), ours))


def clear_dotenv(path: Path, names: Iterable[str]) -> None:
    """Takes our settings out of a `.env`; removes the file if nothing is left in it."""
    rest = without(_text(path), names)
    if rest.strip():
        write_private_file(path, rest)
    else:
        path.unlink(missing_ok=True)


def refuse_remote(path: Path) -> None:
    """Refuses to overwrite settings of another deployment.

    Raises:
        LocalStackError: the `.env` points at a host that is not local.
    """
    values = _values(_text(path))
    for name in (settings.QUEUE_URL, settings.DATABASE_URL):
        if values.get(name) and urlsplit(values[name]).hostname not in {LOOPBACK, "localhost"}:
            raise LocalStackError(
                f"{name} in {path} points at a host that is not local, and the local stack"
                " would overwrite it: move that file away first."
            )


def _values(text: str) -> Mapping[str, str]:
    values = dotenv_values(stream=StringIO(text), interpolate=False)
    return {name: value or "" for name, value in values.items()}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
