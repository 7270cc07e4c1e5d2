"""A migrated, empty database for each test, reused for as long as its schema is not changed.

Creating a database copies every file of a template: a third of a second of the server's time.
Deleting a test's rows takes a tenth of that. A test that changed the schema, the settings or the
privileges of its database gets it dropped, and the next test a new copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import psycopg

from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.local_stack.stack import Stack


@dataclass(frozen=True)
class _New:
    """A database as it was created."""

    name: str
    catalog: str
    rows: str
    filled: frozenset[str]
    """Tables that the schema itself puts rows into."""


@dataclass
class Databases:
    """Databases of one server, copied from a template that is migrated and has no connections."""

    stack: Stack
    template: str
    _idle: list[_New] = field(default_factory=list)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a database that no other test uses meanwhile."""
        new = self._idle.pop() if self._idle else self._create()
        yield self._url(new.name)
        if self._is_restored(new):
            self._idle.append(new)
        else:
            administer(self.stack, f"DROP DATABASE {new.name} WITH (FORCE)")

    def _url(self, name: str) -> str:
        return postgres.url(self.stack.state, name)

    def _create(self) -> _New:
        name = f"logins_{uuid4().hex}"
        administer(self.stack, f"CREATE DATABASE {name} TEMPLATE {self.template}")
        with psycopg.connect(self._url(name)) as connection:
            tables = [table for (table,) in connection.execute(_TABLES)]
            filled = frozenset(table for table in tables if _rows(connection, [table]))
            return _New(name, _catalog(connection), _rows(connection, filled), filled)

    def _is_restored(self, new: _New) -> bool:
        """Delete what a test left; return whether the database is as it was created."""
        try:
            with psycopg.connect(self._url(new.name)) as connection:
                connection.execute(_END_OTHER_SESSIONS)
                if _catalog(connection) != new.catalog:
                    return False
                _delete_rows(connection, new.filled)
                return _rows(connection, new.filled) == new.rows
        except psycopg.Error:
            return False


def administer(stack: Stack, statement: str) -> None:
    """Execute a statement as the administrator of the server."""
    url = postgres.url(stack.state, postgres.OWNER)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


_END_OTHER_SESSIONS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

# A row of a catalog that is added or changed has a newer transaction; one that is dropped is gone.
_CATALOGS = (
    "pg_attrdef",
    "pg_attribute",
    "pg_class",
    "pg_constraint",
    "pg_default_acl",
    "pg_description",
    "pg_extension",
    "pg_index",
    "pg_inherits",
    "pg_namespace",
    "pg_policy",
    "pg_proc",
    "pg_rewrite",
    "pg_trigger",
    "pg_type",
)
_OF_DATABASE = """
SELECT count(*), max(xmin::text::bigint) FROM {}
WHERE {} = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_CATALOG = " UNION ALL ".join(
    [
        *(f"SELECT count(*), max(xmin::text::bigint) FROM {name}" for name in _CATALOGS),
        _OF_DATABASE.format("pg_database", "oid"),
        _OF_DATABASE.format("pg_db_role_setting", "setdatabase"),
    ]
)

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
"""
# The sequence of a table that keeps its rows goes on.
_RESTART_SEQUENCES = """
SELECT setval(sequence.seqrelid::regclass, sequence.seqstart, false)
FROM pg_sequence AS sequence
LEFT JOIN pg_depend AS owned
       ON owned.classid = 'pg_class'::regclass AND owned.objid = sequence.seqrelid
      AND owned.deptype IN ('a', 'i')
WHERE owned.refobjid IS NULL OR owned.refobjid = ANY (%s::regclass[]::oid[])
"""


def _catalog(connection: psycopg.Connection) -> str:
    return str(connection.execute(_CATALOG.encode()).fetchall())


def _rows(connection: psycopg.Connection, tables: Iterable[str]) -> str:
    texts = (
        (table, text)
        for table in sorted(tables)
        for (text,) in connection.execute(f"SELECT t::text FROM {table} t ORDER BY 1".encode())
    )
    return "\n".join(f"{table} {text}" for table, text in texts)


def _delete_rows(connection: psycopg.Connection, but_not: frozenset[str]) -> None:
    tables = [table for (table,) in connection.execute(_TABLES) if table not in but_not]
    # Without the triggers that keep the audit as it is.
    connection.execute("SET session_replication_role = replica")
    connection.execute("; ".join(f"DELETE FROM {table}" for table in tables).encode())
    connection.execute(_RESTART_SEQUENCES, [tables])
