"""Every error that is raised on purpose has one root."""

from __future__ import annotations

import pytest

from fetch_mask_assets import errors


@pytest.mark.parametrize(
    "kind",
    [
        errors.SettingError,
        errors.KeysetError,
        errors.NotReadyError,
        errors.QueueError,
        errors.DatabaseError,
        errors.RulesBrokenError,
        errors.TokenError,
    ],
)
def test_every_error_is_caught_by_the_root(kind: type[errors.FetchMaskError]) -> None:
    with pytest.raises(errors.FetchMaskError, match=r"^what to do$"):
        raise kind("what to do")
