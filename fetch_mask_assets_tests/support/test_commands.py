"""The fork server of the commands preloads what exists: it would pass over a missing module."""

from __future__ import annotations

import importlib.util

import pytest

from fetch_mask_assets_tests.support.commands import PRELOADED


@pytest.mark.parametrize("name", PRELOADED)
def test_a_preloaded_module_exists(name: str) -> None:
    assert importlib.util.find_spec(name) is not None
