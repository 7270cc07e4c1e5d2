"""Locks that last until a transaction ends, and leases that last until a session ends.

A transaction that takes several locks takes them in this order: `MD5_UPGRADE`, `REGISTRY`,
`LINKS`, and last those of the rows of user_logins and of the audit, which the database takes
itself.
"""

from __future__ import annotations

from typing import Final, Literal

import psycopg

from fetch_mask_assets.postgres.sessions import one_row

MD5_UPGRADE: Final = "md5_upgrade"
REGISTRY: Final = "registry"
LINKS: Final = "links"


def acquire_lock(connection: psycopg.Connection, name: Literal["registry", "links"]) -> None:
    """Wait for a lock and keep it until the transaction ends.

    Raises:
        psycopg.Error: the wait timed out, or this user may not take the lock; wrap the call in
            `translate_errors`.
    """
    connection.execute("SELECT login_ingest.acquire_lock(%s)", [name])


def acquire_lease(connection: psycopg.Connection, name: Literal["md5_upgrade"]) -> bool:
    """Return whether the session has acquired a lease, which it keeps until it ends.

    The connection must be in autocommit mode, so that other sessions see the lease.

    Raises:
        psycopg.Error: this user may not take the lease; wrap the call in `translate_errors`.
    """
    (is_acquired,) = one_row(connection, "SELECT login_ingest.acquire_lease(%s)", name)
    return bool(is_acquired)
