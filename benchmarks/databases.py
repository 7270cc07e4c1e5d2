"""Databases of the benchmarks' own beside LOGIN_DATABASE_URL's."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import psutil
import psycopg
from psycopg import sql

from fetch_mask_assets.postgres.migrate import upgrade


class DatabaseKind(StrEnum):
    """The content of a new database."""

    EMPTY = "empty"
    MIGRATED = "migrated"
    """The product's schema."""
    TABLE = "table"
    """user_logins with three indexes, and nothing else."""


_TABLE = """
CREATE TABLE user_logins (
    user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
    masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date
);
CREATE INDEX ON user_logins (user_id);
CREATE INDEX ON user_logins (masked_ip text_pattern_ops);
CREATE INDEX ON user_logins (masked_device_id text_pattern_ops);
"""


@contextmanager
def scratch_database(url: str, kind: DatabaseKind = DatabaseKind.MIGRATED) -> Iterator[str]:
    """A new database on the same server, by its URL; it is dropped at the end."""
    name = f"benchmark_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own = psycopg.conninfo.make_conninfo(url, dbname=name)
            yield _filled(_as_url(url, name), own, kind)
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _filled(url: str, own: str, kind: DatabaseKind) -> str:
    if kind is DatabaseKind.MIGRATED:
        upgrade(url)
    if kind is DatabaseKind.TABLE:
        with psycopg.connect(own) as connection:
            connection.execute(_TABLE)
    return url


def _as_url(url: str, database: str) -> str:
    """The URL with another database; rivals take URLs, not libpq's keywords."""
    return f"{url.partition('?')[0].rpartition('/')[0]}/{database}"


class ServerCpu:
    """CPU time of all processes of a local Postgres server."""

    def __init__(self, url: str) -> None:
        """Finds the server's first process.

        Raises:
            RuntimeError: the server is not on this machine.
        """
        with psycopg.connect(url) as connection:
            [(backend,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
            parent = psutil.Process(backend).parent() if psutil.pid_exists(backend) else None
        if parent is None:
            raise RuntimeError("the benchmark needs a Postgres server on this machine")
        self._first = parent

    def seconds(self) -> float:
        """User and system time so far, of ended processes too."""
        times = self._first.cpu_times()
        ended = times.children_user + times.children_system
        return float(times.user + times.system + ended + sum(map(_seconds, self._children())))

    def _children(self) -> list[psutil.Process]:
        return self._first.children()


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0
    return float(times.user + times.system)
