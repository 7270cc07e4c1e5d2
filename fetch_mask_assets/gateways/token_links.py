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


def write_links_in(connection: psycopg.Connection, change: int, links: Sequence[TokenLink]) -> None:
    """Links old tokens of one field to new ones, as a part of a change that is on record.

    Raises:
        psycopg.Error: refused; wrap the call in `plain_errors`.
    """
    if links:
        old_tokens = [link.old_token for link in links]
        new_tokens = [link.new_token for link in links]
        connection.execute(_LINK_IN_CHANGE, [change, old_tokens, new_tokens])


_LINK_TOKENS = "SELECT login_ingest.link_tokens(%s::text[], %s::text[], %s::text[])"

_LINK_IN_CHANGE = "SELECT login_ingest.link_in_change(%s, %s::text[], %s::text[])"
