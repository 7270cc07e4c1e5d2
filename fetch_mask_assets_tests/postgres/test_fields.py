"""The database has the fields that the declaration names, in the same form."""

from __future__ import annotations

from fetch_mask_assets_tests.support.declared_fields import (
    declared_columns,
    declared_shapes,
    stored_columns,
    stored_shapes,
)


def test_the_columns_of_user_logins_are_those_of_the_declaration(database_url: str) -> None:
    assert stored_columns(database_url) == declared_columns()


def test_the_database_takes_the_tokens_that_the_declaration_describes(database_url: str) -> None:
    assert stored_shapes(database_url) == declared_shapes()
