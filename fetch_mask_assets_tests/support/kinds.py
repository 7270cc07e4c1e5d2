"""The kinds of user_logins that a database can have."""

from __future__ import annotations

import pytest

PLAIN = "plain"
PARTITIONED = "partitioned"

BOTH_KINDS = pytest.mark.parametrize("database_url", [PLAIN, PARTITIONED], indirect=True)
PARTITIONED_ONLY = pytest.mark.parametrize("database_url", [PARTITIONED], indirect=True)
"""The databases of the tests that are marked so have such a user_logins."""
