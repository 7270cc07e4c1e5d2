"""What lies in files and tables, as bytes that can be searched."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Each file below a directory, with its path."""
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()


def tables(url: str) -> Iterator[tuple[str, bytes]]:
    """Each table of a database as text, and each binary value in it, also decompressed."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            name = f"{connection.info.dbname}.{schema}.{table}"
            query = sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))
            for row in connection.execute(query):
                for value in row:
                    yield name, value if isinstance(value, bytes) else str(value).encode()
                    if isinstance(value, bytes):
                        yield name, _decompressed(value)


def _decompressed(value: bytes) -> bytes:
    try:
        return zlib.decompress(value)
    except zlib.error:
        return b""


def write_ahead_log(data: Path, since: str) -> Iterator[tuple[str, bytes]]:
    """The segments of a server's write-ahead log that were begun since one of that name."""
    for path in sorted((data / "pg_wal").iterdir()):
        if path.is_file() and path.name >= since:
            # A segment that was not filled, or was recycled and is still to come, ends with zeros.
            yield "write-ahead log", path.read_bytes().rstrip(b"\0")
