"""A rejection is a code and a field."""

from __future__ import annotations

import pytest

from fetch_mask_assets.pipeline.contract.rejection import Reason, RejectedError, Rejection


def test_a_rejected_error_carries_the_rejection_and_says_its_code() -> None:
    error = RejectedError(Reason.NOT_AN_IP, "ip")

    assert Rejection(Reason.NOT_AN_IP, "ip") == error.rejection
    assert str(error) == "not_an_ip"


def test_a_rejection_need_not_name_a_field() -> None:
    assert Rejection(Reason.NOT_JSON).field is None


def test_a_rejection_cannot_be_changed() -> None:
    rejection = Rejection(Reason.NOT_JSON)

    with pytest.raises(AttributeError):
        rejection.field = "ip"  # type: ignore[misc]


def test_every_reason_is_a_word_of_its_own_that_a_column_can_hold() -> None:
    assert all(reason.value == reason.name.lower() for reason in Reason)
    assert all(reason.value.replace("_", "").isalpha() for reason in Reason)
