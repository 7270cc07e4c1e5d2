"""People of the database: login roles that are members of the product's roles."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import LiteralString


@dataclass(frozen=True)
class Person:
    """Somebody who can log in, and the URL to do so."""

    name: str
    url: str = field(repr=False)


@contextmanager
def person(
    administrator_url: str, *roles: str, options: LiteralString = "LOGIN"
) -> Iterator[Person]:
    """Somebody who is a member of these roles, until the end of the block."""
    name, password = f"person_{uuid4().hex[:12]}", uuid4().hex
    with psycopg.connect(administrator_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} PASSWORD {} {}").format(
                sql.Identifier(name), sql.Literal(password), sql.SQL(options)
            )
        )
        for role in roles:
            connection.execute(
                sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name))
            )
    try:
        yield Person(name, _url(administrator_url, name, password))
    finally:
        with psycopg.connect(administrator_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


def sqlstate(url: str, *statements: str) -> str | None:
    """The SQLSTATE with which the last of some statements is refused, or None if it is not.

    All is rolled back.
    """
    with psycopg.connect(url) as connection:
        for statement in statements[:-1]:
            connection.execute(statement.encode())
        try:
            connection.execute(statements[-1].encode())
        except psycopg.Error as error:
            return error.sqlstate
        finally:
            connection.rollback()
    return None


def _url(url: str, name: str, password: str) -> str:
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(name)}:{password}@{place}"))
