"""Connections to Postgres, and its errors without the values that they carry.

Postgres puts values into DETAIL and CONTEXT; only the SQLSTATE and the constraint's name leave
this module. Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import sqlalchemy.exc

from fetch_mask_assets.errors import DatabaseError

CONNECT_SECONDS = 10

# A host that died says nothing: without these, a wait for its answer lasts for hours.
_IDLE_SECONDS = 30
_PROBE_SECONDS = 10
_PROBES = 3
_UNANSWERED_MILLISECONDS = 60_000

# Connection failures, and what another attempt mends: rollbacks of the server's choosing, a
# lock that was not had in time, a server that shuts down or has no connection left.
_TRANSIENT_CLASSES = ("08", "40")
_TRANSIENT_STATES = ("53300", "55P03", "57P01", "57P02", "57P03", "57P05")
# Data exceptions, constraints, WITH CHECK OPTION, and what a trigger raises.
_REFUSED_VALUE_CLASSES = ("22", "23", "44", "P0")


class TransientDatabaseError(DatabaseError):
    """A failure that another attempt may not meet."""


class RefusedRowError(DatabaseError):
    """The database refused a value: by its type, by a constraint or by a trigger."""


@contextmanager
def translate_errors(verb: str) -> Iterator[None]:
    """Turns database errors into ones that name the verb, the SQLSTATE and the constraint."""
    try:
        yield
    except psycopg.Error as error:
        raise _plain(verb, error) from None
    except sqlalchemy.exc.DBAPIError as error:
        raise _plain(verb, error.orig) from None


def connect(database_url: str, **options: str) -> psycopg.Connection:
    """A connection to the warehouse, named so that it is known in pg_stat_activity.

    Raises:
        psycopg.Error: no connection; wrap the call in `translate_errors`.
    """
    return psycopg.connect(
        database_url,
        connect_timeout=CONNECT_SECONDS,
        application_name="fetch_mask_assets",
        tcp_user_timeout=_UNANSWERED_MILLISECONDS,
        keepalives_idle=_IDLE_SECONDS,
        keepalives_interval=_PROBE_SECONDS,
        keepalives_count=_PROBES,
        **options,  # type: ignore[arg-type]  # libpq's own options are all strings
    )


def one_row(
    connection: psycopg.Connection, statement: LiteralString, *values: object
) -> tuple[Any, ...]:
    """The one row of a statement that always has one.

    Raises:
        DatabaseError: it had none.
        psycopg.Error: it was refused; wrap the call in `translate_errors`.
    """
    row = connection.execute(statement, values or None).fetchone()
    if row is None:
        raise DatabaseError("the database answered with no row where there is always one.")
    return row


def _plain(verb: str, error: BaseException | None) -> DatabaseError:
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    constraint = error.diag.constraint_name if isinstance(error, psycopg.Error) else None
    where = f" by {constraint}" if constraint else ""
    if state is None:
        return TransientDatabaseError(
            f"no connection to the database to {verb}: check that it is up and LOGIN_DATABASE_URL."
        )
    remedy = _REMEDIES.get(constraint or "") or _remedy(state)
    sentence = f"the database refused to {verb}: SQLSTATE {state}{where}. {remedy}"
    if state.startswith(_TRANSIENT_CLASSES) or state in _TRANSIENT_STATES:
        return TransientDatabaseError(sentence)
    if state.startswith(_REFUSED_VALUE_CLASSES):
        return RefusedRowError(sentence)
    return DatabaseError(sentence)


# Rules of our own functions, which they give as constraints.
_REMEDIES = {
    "key_usable": "The key is retired, or not registered: read the keysets anew.",
    "key_registered": "The key registry does not know the key: check MASKING_KEYSETS.",
    "link_unique": "A token is linked to another value's: check MASKING_KEYSETS.",
    "key_conflict": "The keysets are not those of this database: check MASKING_KEYSETS.",
}


def _remedy(state: str) -> str:
    remedies = {
        "28": "Check the user and password in LOGIN_DATABASE_URL.",
        "3D": "Check the database name in LOGIN_DATABASE_URL.",
        "42": "Check that `fetch-mask migrate` has run and that the user may do this.",
        "53": "The server is short of connections, memory or disk.",
        "25": "The server is read-only, perhaps a standby.",
    }
    return remedies.get(state[:2], "Look the code up in PostgreSQL's appendix of error codes.")
