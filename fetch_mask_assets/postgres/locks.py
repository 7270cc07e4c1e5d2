"""Turns: what one transaction at a time does, and leases: what one session at a time does.

Whoever takes several turns in a transaction takes them in this order: `MD5_UPGRADE`, `REGISTRY`,
`LINKS`, and last the audit's, which the database takes itself.
"""

from __future__ import annotations

from typing import Final, Literal

import psycopg

from fetch_mask_assets.postgres.sessions import one_row

MD5_UPGRADE: Final = "md5_upgrade"
REGISTRY: Final = "registry"
LINKS: Final = "links"


def acquire_lock(connection: psycopg.Connection, name: Literal["registry", "links"]) -> None:
    """Waits for a turn; it lasts until the transaction ends.

    Raises:
        psycopg.Error: not had in time, or not this login's; wrap the call in `translate_errors`.
    """
    connection.execute("SELECT login_ingest.acquire_lock(%s)", [name])


def acquire_lease(connection: psycopg.Connection, name: Literal["md5_upgrade"]) -> bool:
    """Whether the session has the lease now, which lasts until the session ends.

    The connection must commit by itself, so that others see who has it.

    Raises:
        psycopg.Error: not this login's; wrap the call in `translate_errors`.
    """
    (is_ours,) = one_row(connection, "SELECT login_ingest.acquire_lease(%s)", name)
    return bool(is_ours)
