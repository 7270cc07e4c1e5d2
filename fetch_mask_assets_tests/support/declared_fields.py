"""The fields as they are declared, and as a database has them."""

from __future__ import annotations

import psycopg

from fetch_mask_assets.masking.fields import FIELDS, MASKED_FIELDS, MAX_TOKEN_LENGTH, MaskedField
from fetch_mask_assets.masking.token import format_token

Columns = dict[str, tuple[str, str]]
"""The type and the documentation of each column of user_logins, by its name."""

TokenShapes = dict[str, tuple[str, int, int, str, str, str]]
"""Of each masked field by name: its column, the least and the greatest length of its tokens, the
singular, the plural and the label."""


# Tink's prefix of a ciphertext, and its synthetic IV.
_OVERHEAD_BYTES = 5 + 16


def min_token_length(field: MaskedField) -> int:
    """The length of the field's shortest token, in characters."""
    return len(format_token(field, bytes(_OVERHEAD_BYTES + field.form.min_bytes)))


def max_token_length(field: MaskedField) -> int:
    """The length up to which a text can be a token of the field, in characters."""
    return min_token_length(field) if field.form.is_fixed else MAX_TOKEN_LENGTH


def declared_columns() -> Columns:
    """The columns that the declaration gives."""
    return {field.column: (field.sql_type, field.description) for field in FIELDS}


def stored_columns(url: str) -> Columns:
    """The columns that the database has, without the day of the login, which is no field."""
    statement = """
        SELECT column_name, format_type(atttypid, atttypmod), description
        FROM login_ingest.login_column LEFT JOIN pg_attribute
             ON attrelid = 'user_logins'::regclass AND attname = column_name
        WHERE column_name <> 'create_date'
    """
    with psycopg.connect(url) as connection:
        rows = connection.execute(statement).fetchall()
    return {
        name: (kind.replace("character varying", "varchar"), description)
        for name, kind, description in rows
    }


def declared_shapes() -> TokenShapes:
    """The tokens' shapes that the declaration gives."""
    return {
        field.name: (
            field.column,
            min_token_length(field),
            max_token_length(field),
            field.singular,
            field.plural,
            f"the {field.label}",
        )
        for field in MASKED_FIELDS
    }


def stored_shapes(url: str) -> TokenShapes:
    """The tokens' shapes that the database checks."""
    statement = """
        SELECT name, token_column, min_token_length, max_token_length, singular, plural, description
        FROM login_ingest.masked_field
    """
    with psycopg.connect(url) as connection:
        return {row[0]: row[1:] for row in connection.execute(statement)}
