-- Counts for the privacy report. The auditor can call these functions and cannot read a token.

SET ROLE login_ingest_owner;

-- Prefixes are grouped first, so that few are decoded. Only CASE ensures that a text which is not a
-- token is not decoded. The version byte encodes to "A" and one of sixteen letters.
-- Source: https://developers.google.com/tink/wire-format
CREATE FUNCTION login_ingest.rows_by_key(
    p_keyset text
) RETURNS TABLE (key_id bigint, row_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    column_name text;
BEGIN
    IF p_keyset = 'quarantine' THEN
        RETURN QUERY
        SELECT ('x' || encode(substr(q.sealed_body, 2, 4), 'hex'))::bit(32)::bigint, count(*)
        FROM login_ingest.quarantine q
        WHERE length(q.sealed_body) > 5 AND get_byte(q.sealed_body, 0) = 1 GROUP BY 1;
        RETURN;
    END IF;
    SELECT token_column INTO column_name FROM login_ingest.masked_field WHERE name = p_keyset;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format($query$
        SELECT ('x' || encode(substr(prefix, 2, 4), 'hex'))::bit(32)::bigint, sum(times)::bigint
        FROM (
            SELECT CASE WHEN head ~ %L
                   THEN decode(translate(right(head, 8), '-_', '+/'), 'base64') END AS prefix, times
            FROM (
                SELECT left(%I, %s) AS head, count(*) AS times FROM %s GROUP BY 1
            ) AS heads
        ) AS prefixes
        WHERE prefix IS NOT NULL GROUP BY 1
        $query$,
        '^' || p_keyset || ':' || 'A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{6}$',
        column_name, length(p_keyset) + 9, login_ingest.logins_table());
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.rows_by_key TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON FUNCTION login_ingest.rows_by_key IS
'Returns the number of rows, or of sealed messages, under each key of a keyset: a masked field, or '
'quarantine. Reads the whole table.';

CREATE FUNCTION login_ingest.link_counts()
RETURNS TABLE (field text, tokens bigint, digests bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT field, count(*) FILTER (WHERE starts_with(old_token, field || ':')),
           count(*) FILTER (WHERE NOT starts_with(old_token, field || ':'))
    FROM login_ingest.token_link GROUP BY field
$$;
GRANT EXECUTE ON FUNCTION login_ingest.link_counts TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON FUNCTION login_ingest.link_counts IS
'Returns the number of links of each field, from tokens and from MD5 digests.';

CREATE FUNCTION login_ingest.null_token_counts()
RETURNS TABLE (field text, null_rows bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pairs text;
    counts jsonb;
BEGIN
    SELECT string_agg(format('%L, count(*) - count(%I)', name, token_column), ', ') INTO pairs
    FROM login_ingest.masked_field;
    EXECUTE format('SELECT jsonb_build_object(%s) FROM %s', pairs, login_ingest.logins_table())
    INTO counts;
    RETURN QUERY SELECT key, value::bigint FROM jsonb_each_text(counts) ORDER BY key;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.null_token_counts TO login_ingest_recovery;
GRANT EXECUTE ON FUNCTION login_ingest.null_token_counts TO login_ingest_auditor;
COMMENT ON FUNCTION login_ingest.null_token_counts IS
'Returns the number of rows of user_logins without a token, for each masked field.';

CREATE FUNCTION login_ingest.login_counts(
    OUT login_rows bigint,
    OUT oldest_day date
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('SELECT count(*), min(create_date) FROM %s', login_ingest.logins_table())
    INTO login_rows, oldest_day;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.login_counts TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON FUNCTION login_ingest.login_counts IS
'Returns the number of rows of user_logins and their oldest day.';

RESET ROLE;
