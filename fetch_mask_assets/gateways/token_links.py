"""Writing links between tokens, inside the transaction of whoever has them."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from fetch_mask_assets.domain.remasking import TokenLink


def write_links(connection: psycopg.Connection, links: Sequence[TokenLink]) -> None:
    """Links old tokens to new ones; others who link wait until the transaction has ended.

    Raises:
        psycopg.Error: refused; wrap the call in `plain_errors`.
    """
    if links:
        columns = zip(
            *((link.field, link.old_token, link.new_token) for link in links), strict=True
        )
        connection.execute(_LINK_TOKENS, [list(column) for column in columns])


_LINK_TOKENS = "SELECT login_ingest.link_tokens(%s::text[], %s::text[], %s::text[])"
