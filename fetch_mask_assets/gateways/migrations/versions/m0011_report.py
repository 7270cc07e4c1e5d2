"""What a report counts and its reader may not read: rows by key, links, rows of the table.

Counts come from functions, so that the auditor learns them and no token.
"""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import AUDITOR, OWNER, RECOVERY

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# A key's id stands in the first eight characters of a token, and after the version byte, 1, of a
# sealed body. Source: https://developers.google.com/tink/wire-format
# The characters are grouped first, so that few are looked at, and only CASE promises that what is
# no token is not decoded. The version byte makes "A" and one of the sixteen letters after it.
_ROWS_BY_KEY = """
CREATE FUNCTION login_ingest.rows_by_key(p_keyset text)
RETURNS TABLE (key_id bigint, key_rows bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_keyset = 'quarantine' THEN
        RETURN QUERY
        SELECT ('x' || encode(substr(q.sealed_body, 2, 4), 'hex'))::bit(32)::bigint, count(*)
        FROM login_ingest.quarantine q
        WHERE length(q.sealed_body) > 5 AND get_byte(q.sealed_body, 0) = 1 GROUP BY 1;
        RETURN;
    END IF;
    IF p_keyset NOT IN ('ip', 'device_id') THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format($query$
        SELECT ('x' || encode(substr(prefix, 2, 4), 'hex'))::bit(32)::bigint, sum(times)::bigint
        FROM (
            SELECT CASE WHEN head ~ %L
                   THEN decode(translate(right(head, 8), '-_', '+/'), 'base64') END AS prefix, times
            FROM (
                SELECT left(%I, %s) AS head, count(*) AS times FROM {schema}.user_logins GROUP BY 1
            ) AS heads
        ) AS prefixes
        WHERE prefix IS NOT NULL GROUP BY 1
        $query$,
        '^' || p_keyset || ':' || 'A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{6}$',
        'masked_' || p_keyset, length(p_keyset) + 9);
END $$
"""

_LINK_COUNTS = """
CREATE FUNCTION login_ingest.link_counts()
RETURNS TABLE (of_field text, tokens bigint, digests bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT field, count(*) FILTER (WHERE starts_with(old_token, field || ':')),
           count(*) FILTER (WHERE NOT starts_with(old_token, field || ':'))
    FROM login_ingest.token_link GROUP BY field
$$
"""

_LOGIN_COUNTS = """
CREATE FUNCTION login_ingest.login_counts(
    OUT login_rows bigint, OUT without_ip bigint, OUT without_device_id bigint, OUT oldest_day date
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*), count(*) - count(masked_ip), count(*) - count(masked_device_id),
           min(create_date)
    FROM {schema}.user_logins
$$
"""

_BATCH_BALANCE = """
CREATE VIEW login_ingest.batch_balance AS
SELECT batch_id, run_id, committed_at, received, loaded, quarantined, already_known, ledger,
       received = loaded + quarantined + already_known AND ledger = loaded + quarantined AS holds
FROM (
    SELECT batch.*,
           (SELECT count(*) FROM login_ingest.ledger WHERE ledger.batch_id = batch.batch_id)
           AS ledger
    FROM login_ingest.batch
) AS counted
"""

_FUNCTIONS = {
    "rows_by_key(text)": _ROWS_BY_KEY,
    "link_counts()": _LINK_COUNTS,
    "login_counts()": _LOGIN_COUNTS,
}

_COMMENTS = {
    "rows_by_key(text)": "How many rows, or sealed messages, are under each key of a keyset: ip,"
    " device_id or quarantine. Reads the whole table.",
    "link_counts()": "How many links each field has, from tokens and from MD5 digests.",
    "login_counts()": "How many rows user_logins has, how many without a token, the oldest day.",
}


def upgrade() -> None:
    """Makes the functions; of user_logins they give counts and nothing else."""
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for signature, statement in _FUNCTIONS.items():
        op.execute(statement.replace("{schema}", schema))
        op.execute(f"COMMENT ON FUNCTION login_ingest.{signature} IS '{_COMMENTS[signature]}'")
        op.execute(f"ALTER FUNCTION login_ingest.{signature} OWNER TO {OWNER}")
        op.execute(f"REVOKE ALL ON FUNCTION login_ingest.{signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.{signature} TO {AUDITOR}, {RECOVERY}")
    op.execute(_BATCH_BALANCE)
    op.execute(
        "COMMENT ON VIEW login_ingest.batch_balance IS 'Each batch with the lines that the ledger"
        " has of it, and whether its account adds up.'"
    )
    op.execute(f"ALTER VIEW login_ingest.batch_balance OWNER TO {OWNER}")
    op.execute(f"GRANT SELECT ON login_ingest.batch_balance TO {AUDITOR}, {RECOVERY}")
    op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.rows_without_tokens() TO {RECOVERY}")
