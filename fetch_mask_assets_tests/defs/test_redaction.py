"""What an error of a run may say: our own sentences, unless an address stands in them."""

import pytest

from fetch_mask_assets.defs.redaction import UnexpectedError, redact_errors
from fetch_mask_assets.errors import DatabaseError

ADDRESSES = ("203.0.113.213", "2001:db8:5eaf::c0de:77", "::ffff:203.0.113.213")


@pytest.mark.parametrize("address", ADDRESSES, ids=range(len(ADDRESSES)))
def test_an_own_error_that_quotes_an_address_is_withheld(address: str) -> None:
    with pytest.raises(UnexpectedError, match="committing failed with DatabaseError") as caught:
        _fail(DatabaseError(f"the row of [{address}] was refused."))
    assert address not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_own_error_without_one_passes_as_it_is() -> None:
    error = DatabaseError("the database refused to copy rows: SQLSTATE 53100 at 12:30:00.")
    with pytest.raises(DatabaseError) as caught:
        _fail(error)
    assert caught.value is error


def test_the_text_of_a_foreign_error_is_withheld() -> None:
    with pytest.raises(UnexpectedError, match="committing failed with KeyError in _fail") as caught:
        _fail(KeyError("canary-device"))
    assert "canary" not in str(caught.value)


def _fail(error: Exception) -> None:
    with redact_errors("committing"):
        raise error
