"""What analysts query, and the partitions of a table that is partitioned by month."""

from __future__ import annotations

from alembic import context, op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import (
    ANALYST,
    LOADER,
    OWNER,
    RECOVERY,
)

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# The rows of user_logins_linked, written so that a condition on the token or on the user reaches an
# index: rows whose token has no link, and rows that a link leads to. Only tokens count: a null was
# erased, and anything else may be a placeholder, whose rows have nothing in common.
_ROWS = """(
    SELECT login.{column}::text AS {column}, login.user_id, login.create_date
    FROM user_logins AS login
    WHERE starts_with(login.{column}, '{field}:')
      AND NOT EXISTS (SELECT FROM login_ingest.token_link AS link
                      WHERE link.field = '{field}' AND link.old_token = login.{column})
    UNION ALL
    SELECT link.new_token, login.user_id, login.create_date
    FROM login_ingest.token_link AS link
    JOIN user_logins AS login ON login.{column} = link.old_token
    WHERE link.field = '{field}'
)"""

# The groups without links first, so that an index on (token, user, day) gives them in order, and
# then those that links bring together.
_REPEATED = """
CREATE VIEW login_ingest.repeated_{things} AS
SELECT login.{column}::text AS {column}, count(*) AS logins, count(DISTINCT user_id) AS users,
       min(create_date) AS first_day, max(create_date) AS last_day
FROM user_logins AS login
WHERE starts_with(login.{column}, '{field}:')
GROUP BY login.{column}
HAVING count(*) > 1
   AND NOT EXISTS (SELECT FROM login_ingest.token_link AS link
                   WHERE link.field = '{field}' AND link.old_token = login.{column})
   AND NOT EXISTS (SELECT FROM login_ingest.token_link AS link
                   WHERE link.field = '{field}' AND link.new_token = login.{column})
UNION ALL
SELECT linked.newest, count(*), count(DISTINCT user_id), min(create_date), max(create_date)
FROM (SELECT old_token AS token, new_token AS newest
      FROM login_ingest.token_link WHERE field = '{field}'
      UNION
      SELECT new_token, new_token FROM login_ingest.token_link WHERE field = '{field}') AS linked
JOIN user_logins AS login ON login.{column} = linked.token
GROUP BY linked.newest
HAVING count(*) > 1
"""

_USERS = """
CREATE VIEW login_ingest.{thing}_users AS
SELECT {column}, user_id, count(*) AS logins,
       min(create_date) AS first_day, max(create_date) AS last_day
FROM {rows} AS login
GROUP BY {column}, user_id
"""

# A device of n users makes n * (n - 1) / 2 pairs: one that half the world uses says nothing of two
# of them, and would make more rows than the table has.
_SHARING = """
CREATE VIEW login_ingest.users_sharing_devices AS
WITH of_device AS MATERIALIZED (SELECT * FROM login_ingest.device_users WHERE user_id IS NOT NULL),
     shared AS (SELECT masked_device_id FROM of_device
                GROUP BY masked_device_id HAVING count(*) BETWEEN 2 AND 50)
SELECT one.user_id, other.user_id AS other_user_id, count(*) AS devices,
       min(greatest(one.first_day, other.first_day)) AS since,
       max(greatest(one.last_day, other.last_day)) AS last_day
FROM shared
JOIN of_device AS one USING (masked_device_id)
JOIN of_device AS other USING (masked_device_id)
WHERE one.user_id < other.user_id
GROUP BY one.user_id, other.user_id
"""

_READABLE = """
CREATE VIEW login_ingest.readable_logins AS
SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version,
       CASE WHEN app_version >= 0 THEN
           concat_ws('.', app_version / 1000000, app_version / 1000 % 1000, app_version % 1000)
       END AS version,
       create_date
FROM login_ingest.user_logins_linked
"""

# No argument: whoever may call it can only make what is due anyway. It takes the lock of the whole
# table, so that nobody sees rows between the default partition and their own, and gives up soon
# rather than make the runs behind it wait.
_MAKE_PARTITIONS = """
CREATE FUNCTION login_ingest.create_partitions() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' SET datestyle = 'ISO' AS $$
DECLARE
    this_month date := date_trunc('month', now() AT TIME ZONE 'UTC');
    starts date;
    stops date;
    part text;
    made integer := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass('{schema}.user_logins')
                   AND inhrelid = to_regclass('login_ingest.user_logins_default')) THEN
        RETURN NULL;
    END IF;
    FOR months IN -1..3 LOOP
        starts := this_month + make_interval(months => months);
        stops := starts + make_interval(months => 1);
        part := 'user_logins_' || to_char(starts, 'YYYY_MM');
        CONTINUE WHEN to_regclass('login_ingest.' || part) IS NOT NULL;
        LOCK TABLE {schema}.user_logins IN ACCESS EXCLUSIVE MODE;
        -- Somebody else may have made it while this waited.
        CONTINUE WHEN to_regclass('login_ingest.' || part) IS NOT NULL;
        EXECUTE format('CREATE TABLE login_ingest.%I (LIKE {schema}.user_logins INCLUDING ALL)',
                       part);
        EXECUTE format('WITH moved AS (DELETE FROM login_ingest.user_logins_default'
                       ' WHERE create_date >= %L AND create_date < %L RETURNING *)'
                       ' INSERT INTO login_ingest.%I SELECT * FROM moved', starts, stops, part);
        EXECUTE format('ALTER TABLE {schema}.user_logins ATTACH PARTITION login_ingest.%I'
                       ' FOR VALUES FROM (%L) TO (%L)', part, starts, stops);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$
"""

_FIELDS = (
    {"field": "ip", "column": "masked_ip", "thing": "ip", "things": "ips"},
    {"field": "device_id", "column": "masked_device_id", "thing": "device", "things": "devices"},
)

_VIEWS = (
    "repeated_ips",
    "repeated_devices",
    "ip_users",
    "device_users",
    "users_sharing_devices",
    "readable_logins",
)

_TOKEN_OF = {"ip": "The newest token of the IP.", "device": "The newest token of the device id."}

_COUNTED = {
    "logins": "How many logins have it.",
    "users": "Across how many users. A null user is none.",
    "first_day": "The UTC day of the first of these logins.",
    "last_day": "The UTC day of the last of these logins.",
}

_PLAIN = {
    "user_id": "The user, as the app sent it.",
    "device_type": "The kind of device, as the app sent it.",
    "locale": "The locale, or null.",
    "app_version": "major * 1,000,000 + minor * 1,000 + patch; null if the version has no such"
    " number. Sort and compare by it.",
    "create_date": "The UTC day on which SQS took the message.",
}

_OF_USER = {
    "user_id": _PLAIN["user_id"],
    "logins": "How many logins of the user have it.",
    "first_day": _COUNTED["first_day"],
    "last_day": _COUNTED["last_day"],
}

_COLUMN_COMMENTS = {
    "repeated_ips": {"masked_ip": _TOKEN_OF["ip"], **_COUNTED},
    "repeated_devices": {"masked_device_id": _TOKEN_OF["device"], **_COUNTED},
    "ip_users": {"masked_ip": _TOKEN_OF["ip"], **_OF_USER},
    "device_users": {"masked_device_id": _TOKEN_OF["device"], **_OF_USER},
    "users_sharing_devices": {
        "user_id": "One user of the pair, the first in the order of text.",
        "other_user_id": "The other user of the pair.",
        "devices": "How many devices both have used.",
        "since": "The first day by which both had used one of these devices.",
        "last_day": "The last day on which one of them used one of these devices.",
    },
    "readable_logins": {
        **_PLAIN,
        "masked_ip": _TOKEN_OF["ip"],
        "masked_device_id": _TOKEN_OF["device"],
        "version": "app_version as major.minor.patch, to read. As text 10.0.0 comes before 2.0.0:"
        " sort and compare by app_version.",
    },
}

_VIEW_COMMENTS = {
    "repeated_ips": "IPs that occur in more than one login. Only tokens count. Right while keys are"
    " rotated.",
    "repeated_devices": "Devices that occur in more than one login. Only tokens count. Right while"
    " keys are rotated.",
    "ip_users": "One row for each IP and user of it. Only tokens count. Quick for one token and for"
    " one user.",
    "device_users": "One row for each device and user of it. Only tokens count. Quick for one token"
    " and for one user.",
    "users_sharing_devices": "Pairs of users that have used the same device, each pair once. A"
    " device of more than 50 users makes no pairs: see repeated_devices for it.",
    "readable_logins": "Every login, with tokens that hold while keys are rotated and the version"
    " as text.",
}

_TABLE_COMMENTS = {
    **_PLAIN,
    "masked_ip": "Token of the IP: equal IPs have equal tokens under one key. Null if erased.",
    "masked_device_id": "Token of the device id: equal ids have equal tokens under one key. Null if"
    " erased.",
}


def upgrade() -> None:
    """Makes the views and the function, and comments on user_logins if it was made just now.

    The index that these views want is made after the migrations: `make_index` says why.
    """
    for names in _FIELDS:
        op.execute(_REPEATED.format(**names))
        op.execute(_USERS.format(rows=_ROWS.format(**names), **names))
    op.execute(_SHARING)
    op.execute(_READABLE)
    for view in _VIEWS:
        op.execute(f"ALTER VIEW login_ingest.{view} OWNER TO {OWNER}")
        op.execute(f"GRANT SELECT ON login_ingest.{view} TO {ANALYST}")
        _comment("VIEW", f"login_ingest.{view}", _VIEW_COMMENTS[view], _COLUMN_COMMENTS[view])
    _make_function()
    if context.config.attributes.get("is_new_table"):
        description = (
            "Logins with masked IP and device id. Views over it are in the schema login_ingest."
        )
        _comment("TABLE", "user_logins", description, _TABLE_COMMENTS)


def _make_function() -> None:
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    op.execute(_MAKE_PARTITIONS.replace("{schema}", schema))
    op.execute("REVOKE ALL ON FUNCTION login_ingest.create_partitions() FROM PUBLIC")
    op.execute(
        f"GRANT EXECUTE ON FUNCTION login_ingest.create_partitions() TO {LOADER}, {RECOVERY}"
    )
    op.execute(
        "COMMENT ON FUNCTION login_ingest.create_partitions() IS 'Makes the monthly partitions of"
        " user_logins that are due, last month to three months ahead. How many; null if"
        " user_logins is not partitioned by us.'"
    )


def _comment(kind: str, name: str, description: str, columns: dict[str, str]) -> None:
    op.execute(f"COMMENT ON {kind} {name} IS '{description}'")
    for column, comment in columns.items():
        op.execute(f"COMMENT ON COLUMN {name}.{column} IS '{comment}'")
