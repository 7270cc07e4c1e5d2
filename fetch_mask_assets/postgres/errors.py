"""Translation of database errors into the product's own, without the values that they carry.

Postgres puts values into DETAIL and CONTEXT; only the SQLSTATE and the constraint's name leave
this module. Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from fetch_mask_assets.errors import DatabaseError

# Connection failures, rollbacks by the server, lock time-outs, a server that shuts down or has no
# connection left.
_TRANSIENT_CLASSES = ("08", "40")
_TRANSIENT_STATES = ("53300", "55P03", "57P01", "57P02", "57P03", "57P05")
# Data exceptions, constraints, WITH CHECK OPTION, and exceptions raised by triggers.
_REFUSED_ROW_CLASSES = ("22", "23", "44", "P0")


class TransientDatabaseError(DatabaseError):
    """A failure that may not occur again on another attempt."""


class RefusedRowError(DatabaseError):
    """The database refused a value: by its type, by a constraint or by a trigger."""


@contextmanager
def translate_errors(action: str) -> Iterator[None]:
    """Raise database errors as `DatabaseError`, with the SQLSTATE and the constraint.

    Args:
        action: a verb phrase that completes "the database refused to ...".

    Raises:
        TransientDatabaseError: another attempt may succeed.
        RefusedRowError: a value was refused.
        DatabaseError: any other error of psycopg.
    """
    try:
        yield
    except psycopg.Error as error:
        raise _translated(action, error) from None


def _translated(action: str, error: psycopg.Error) -> DatabaseError:
    if error.sqlstate is None:
        return TransientDatabaseError(
            f"no connection to the database to {action}: check that it is up and"
            " LOGIN_DATABASE_URL."
        )
    state, constraint = error.sqlstate, error.diag.constraint_name
    rule = f" by {constraint}" if constraint else ""
    remedy = _remedy(state, constraint)
    sentence = f"the database refused to {action}: SQLSTATE {state}{rule}. {remedy}"
    if state.startswith(_TRANSIENT_CLASSES) or state in _TRANSIENT_STATES:
        return TransientDatabaseError(sentence)
    if state.startswith(_REFUSED_ROW_CLASSES):
        return RefusedRowError(sentence)
    return DatabaseError(sentence)


def _remedy(state: str, constraint: str | None) -> str:
    return _REMEDIES_BY_RULE.get(constraint or "") or _REMEDIES_BY_CLASS.get(
        state[:2], "Look the code up in PostgreSQL's appendix of error codes."
    )


# Rules of the functions in schema/*.sql, which raise them as constraints.
_REMEDIES_BY_RULE = {
    "masked_field_exists": "The field is not masked in this database: run `fetch-mask migrate`.",
    "token_valid": "A text is not a token of its field. Nothing was written.",
    "md5_valid": "A text is not an MD5 in lower case. Nothing was written.",
    "key_usable": "The key is retired or not registered: read the keysets again.",
    "key_registered": "The key is not in the key registry: check MASKING_KEYSETS.",
    "key_conflict": "The keysets are not those of this database: check MASKING_KEYSETS.",
    "job_key": "The primary key has changed since the job began: repeat the command.",
    "min_ledger_days": "SQS keeps a message for 14 days: set LOGIN_LEDGER_DAYS to 15 or more.",
    "link_unique": "A token is linked to another value's: check MASKING_KEYSETS.",
}

_REMEDIES_BY_CLASS = {
    "25": "The server is read-only, perhaps a standby.",
    "28": "Check the user and password in LOGIN_DATABASE_URL.",
    "3D": "Check the database name in LOGIN_DATABASE_URL.",
    "42": "Check that `fetch-mask migrate` has run and that the user may do this.",
    "53": "The server is short of connections, memory or disk.",
}
