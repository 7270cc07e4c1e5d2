"""The figures of the views that analysts query, and the same counted over the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

import psycopg

from fetch_mask_assets.operations.analysis.views import Figures
from fetch_mask_assets.postgres.sessions import LONG_READ, one_row, open_session


def view_and_table(database_url: str, view: str) -> tuple[Figures, Figures]:
    """The figures of a view, and those counted over user_logins, at one moment.

    Args:
        database_url: libpq URL of a member of login_ingest_analyst.
        view: the name of one of `ANALYSIS_VIEWS`.

    Raises:
        DatabaseError: they cannot be read.
    """
    of_view, of_table = _STATEMENTS[view]
    with open_session(database_url, LONG_READ, "analyse logins") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return _figures(connection, of_view), _figures(connection, of_table)


def _figures(connection: psycopg.Connection, statement: LiteralString) -> Figures:
    (figures,) = one_row(connection, _AS_JSON.replace("{figures}", statement))
    return {name: int(count) for name, count in figures.items()}


_AS_JSON: LiteralString = "SELECT to_json(figures) FROM ({figures}) AS figures"


# Another way than the views: a link is followed for each row; the views join two kinds of rows.
_TOKENS: LiteralString = """
SELECT coalesce(link.new_token, masked_{field}) AS token, user_id
FROM user_logins LEFT JOIN login_ingest.token_link AS link
     ON link.field = '{field}' AND link.old_token = masked_{field}
WHERE starts_with(coalesce(link.new_token, masked_{field}), '{field}:')
"""

_GROUPS: LiteralString = """
SELECT count(*) AS rows, coalesce(sum(logins), 0) AS logins,
       coalesce(max(logins), 0) AS max_logins, coalesce(max(users), 0) AS max_users,
       count(*) FILTER (WHERE users > 1) AS with_several_users
"""

# One row for each token and user first, so that nothing is counted as distinct.
_COUNTED_GROUPS: LiteralString = """
FROM (SELECT sum(logins) AS logins, count(user_id) AS users
      FROM (SELECT token, user_id, count(*) AS logins FROM ({rows}) AS login GROUP BY 1, 2) AS one
      GROUP BY token) AS counted
WHERE logins > 1
"""

_PAIRS = """
SELECT count(*) AS rows, coalesce(sum(devices), 0) AS pairs_of_devices,
       coalesce(max(devices), 0) AS max_devices
FROM login_ingest.users_sharing_devices
"""

_COUNTED_PAIRS: LiteralString = """
WITH used AS (SELECT DISTINCT token, user_id FROM ({rows}) AS login WHERE user_id IS NOT NULL),
     shared AS (SELECT token, array_agg(user_id ORDER BY user_id) AS users FROM used GROUP BY token
                HAVING count(*) BETWEEN 2 AND 50),
     pairs AS (SELECT count(*) AS devices
               FROM shared, unnest(users) WITH ORDINALITY AS one (name, place),
                    unnest(users[place + 1:]) AS other
               GROUP BY one.name, other)
SELECT count(*) AS rows,
       (SELECT coalesce(sum(cardinality(users) * (cardinality(users) - 1) / 2), 0) FROM shared)
           AS pairs_of_devices,
       coalesce(max(devices), 0) AS max_devices
FROM pairs
"""

_READABLE = """
SELECT count(*) AS rows, count(version) AS versions, count(masked_ip) AS ips,
       count(masked_device_id) AS device_ids,
       count(*) FILTER (
           WHERE split_part(version, '.', 1)::bigint * 1000000
               + split_part(version, '.', 2)::bigint * 1000 + split_part(version, '.', 3)::bigint
               <> app_version) AS misread_versions
FROM login_ingest.readable_logins
"""

_COUNTED_ROWS = """
SELECT count(*) AS rows, count(*) FILTER (WHERE app_version >= 0) AS versions,
       count(masked_ip) AS ips, count(masked_device_id) AS device_ids, 0 AS misread_versions
FROM user_logins
"""


def _over_tokens(statement: LiteralString, field: LiteralString) -> LiteralString:
    return statement.replace("{rows}", _TOKENS.replace("{field}", field))


def _groups(view: LiteralString, field: LiteralString) -> tuple[LiteralString, LiteralString]:
    of_table = _over_tokens(_GROUPS + _COUNTED_GROUPS, field)
    return _GROUPS + "FROM login_ingest." + view, of_table


_STATEMENTS: Mapping[str, tuple[LiteralString, LiteralString]] = {
    "repeated_ips": _groups("repeated_ips", "ip"),
    "repeated_devices": _groups("repeated_devices", "device_id"),
    "users_sharing_devices": (_PAIRS, _over_tokens(_COUNTED_PAIRS, "device_id")),
    "readable_logins": (_READABLE, _COUNTED_ROWS),
}
