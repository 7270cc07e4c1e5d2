-- Links from old tokens to new tokens, and the view in which equal values have equal tokens.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.token_link (
    field text NOT NULL,
    old_token text NOT NULL,
    new_token text NOT NULL,
    linked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (field, old_token),
    CONSTRAINT new_token_valid CHECK (starts_with(new_token, field || ':')),
    CONSTRAINT old_token_valid CHECK (
        starts_with(old_token, field || ':') OR old_token ~ '^([0-9a-f]{32}|[0-9A-F]{32})$'
    ),
    CONSTRAINT tokens_differ CHECK (old_token <> new_token)
);
CREATE INDEX token_link_new_token ON login_ingest.token_link (field, new_token);
GRANT SELECT ON login_ingest.token_link TO login_ingest_analyst, login_ingest_recovery;
COMMENT ON TABLE login_ingest.token_link IS
'Tokens of one value under different keys, from old to newest. For extracts with old tokens, and '
'for the view user_logins_linked.';
COMMENT ON COLUMN login_ingest.token_link.field IS
'The masked field. Checked once for each call, and kept by the key registry: every new token is '
'under a registered key of the field.';
COMMENT ON COLUMN login_ingest.token_link.old_token IS
'Token under an older key, or the MD5 of a value.';
COMMENT ON COLUMN login_ingest.token_link.new_token IS
'Token at which all links of the value end.';
COMMENT ON COLUMN login_ingest.token_link.linked_at IS 'Time at which new_token was last changed.';
COMMENT ON CONSTRAINT old_token_valid ON login_ingest.token_link IS
'A token of the field, or an MD5 in hexadecimal.';
COMMENT ON CONSTRAINT tokens_differ ON login_ingest.token_link IS
'A token is not linked to itself.';
COMMENT ON INDEX login_ingest.token_link_new_token IS
'Links that the next rotation extends.';

CREATE FUNCTION login_ingest.make_linked_views() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns text;
    joins text;
    masked record;
BEGIN
    SELECT string_agg(CASE WHEN field.name IS NULL THEN format('login.%I', listed.column_name)
                           ELSE format('coalesce(%I.new_token, login.%I) AS %2$I',
                                       'of_' || field.name, listed.column_name) END,
                      ', ' ORDER BY listed.ordinal_position),
           string_agg(format('
               LEFT JOIN login_ingest.token_link AS %1$I
                   ON %1$I.field = %2$L AND %1$I.old_token = login.%3$I',
               'of_' || field.name, field.name, listed.column_name),
               '' ORDER BY listed.ordinal_position)
               FILTER (WHERE field.name IS NOT NULL)
    INTO columns, joins
    FROM login_ingest.login_column AS listed
    LEFT JOIN login_ingest.masked_field AS field ON field.token_column = listed.column_name;
    EXECUTE format('
        CREATE OR REPLACE VIEW login_ingest.user_logins_linked AS
        SELECT %s FROM %s AS login %s', columns, login_ingest.logins_table(), joins);
    GRANT SELECT ON login_ingest.user_logins_linked TO login_ingest_analyst, login_ingest_recovery;
    COMMENT ON VIEW login_ingest.user_logins_linked IS
    'user_logins with the newest token of every value: equal values have equal tokens, also '
    'during a rotation.';
    FOR masked IN SELECT token_column, description FROM login_ingest.masked_field LOOP
        EXECUTE format('COMMENT ON COLUMN login_ingest.user_logins_linked.%I IS %L',
                       masked.token_column, 'The newest token of ' || masked.description || '.');
    END LOOP;
END $$;
COMMENT ON FUNCTION login_ingest.make_linked_views IS 'Creates the view user_logins_linked.';

SELECT login_ingest.make_linked_views();

-- All links of a value end at one token, which has no link itself. Four rules ensure this:
-- - One transaction writes at a time. Two with different primary keys would link to each other's
--   token.
-- - A link from the token that is now linked to is deleted if it leads to the old token (the keyset
--   of the writer has that key, and another primary key), and followed otherwise (the keyset of the
--   link's writer is newer).
-- - Links that end at a token which is now old are extended before new links are written.
-- - A link that then ends elsewhere belongs to another value, and is refused, unless it ends at a
--   token of a retired key, which no row can contain.
-- OFFSET 0 and subqueries make the planner look up every link by an index.
CREATE FUNCTION login_ingest.upsert_links(p_field text, p_old_tokens text[], p_new_tokens text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Instead of a foreign key, which would be checked for each row.
    PERFORM login_ingest.token_column(p_field);

    DELETE FROM login_ingest.token_link WHERE ctid = ANY (ARRAY(
        SELECT reverse.row_ctid
        FROM unnest(p_old_tokens, p_new_tokens) AS input (old_token, new_token)
        CROSS JOIN LATERAL (
            SELECT link.ctid AS row_ctid FROM login_ingest.token_link AS link
            WHERE link.field = p_field
              AND link.old_token = input.new_token AND link.new_token = input.old_token OFFSET 0
        ) AS reverse
    ));

    UPDATE login_ingest.token_link AS earlier SET new_token = extended.newest, linked_at = now()
    FROM (
        SELECT ending.row_ctid, coalesce((
            SELECT link.new_token FROM login_ingest.token_link AS link
            WHERE link.field = p_field AND link.old_token = input.new_token
        ), input.new_token) AS newest
        FROM unnest(p_old_tokens, p_new_tokens) AS input (old_token, new_token)
        CROSS JOIN LATERAL (
            SELECT link.ctid AS row_ctid FROM login_ingest.token_link AS link
            WHERE link.field = p_field AND link.new_token = input.old_token OFFSET 0
        ) AS ending
    ) AS extended
    WHERE earlier.ctid = extended.row_ctid;

    IF EXISTS (
        SELECT FROM (
            SELECT input.old_token, coalesce((
                SELECT link.new_token FROM login_ingest.token_link AS link
                WHERE link.field = p_field AND link.old_token = input.new_token
            ), input.new_token) AS newest, (
                SELECT link.new_token FROM login_ingest.token_link AS link
                WHERE link.field = p_field AND link.old_token = input.old_token
            ) AS present
            FROM unnest(p_old_tokens, p_new_tokens) AS input (old_token, new_token) OFFSET 0
        ) AS linked
        WHERE present <> newest AND NOT EXISTS (
            SELECT FROM login_ingest.masking_key AS last_key
            WHERE last_key.keyset = p_field AND last_key.retired_at IS NOT NULL
              AND last_key.key_id = login_ingest.token_key_id(present)
        )
    ) THEN
        RAISE EXCEPTION 'a token is already linked to another token'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'link_unique';
    END IF;

    INSERT INTO login_ingest.token_link (field, old_token, new_token)
    SELECT DISTINCT ON (old_token) p_field, old_token, newest
    FROM (
        SELECT input.old_token, coalesce((
            SELECT link.new_token FROM login_ingest.token_link AS link
            WHERE link.field = p_field AND link.old_token = input.new_token
        ), input.new_token) AS newest, (
            SELECT link.new_token FROM login_ingest.token_link AS link
            WHERE link.field = p_field AND link.old_token = input.old_token
        ) AS present
        FROM unnest(p_old_tokens, p_new_tokens) AS input (old_token, new_token) OFFSET 0
    ) AS linked
    WHERE present IS DISTINCT FROM newest
    ORDER BY old_token
    ON CONFLICT (field, old_token) DO UPDATE
    SET new_token = excluded.new_token, linked_at = excluded.linked_at;
END $$;

CREATE FUNCTION login_ingest.link_tokens(
    p_fields text[],
    p_old_tokens text[],
    p_new_tokens text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    links record;
BEGIN
    FOR links IN
        SELECT field, array_agg(old_token) AS old_tokens, array_agg(new_token) AS new_tokens
        FROM unnest(p_fields, p_old_tokens, p_new_tokens) AS input (field, old_token, new_token)
        GROUP BY field ORDER BY field
    LOOP
        PERFORM login_ingest.require_registered_keys(
            links.field, login_ingest.token_key_ids(links.field, links.old_tokens));
        PERFORM login_ingest.require_usable_keys(
            links.field, login_ingest.token_key_ids(links.field, links.new_tokens));
        PERFORM login_ingest.wait_for_lock('links');
        PERFORM login_ingest.upsert_links(links.field, links.old_tokens, links.new_tokens);
    END LOOP;
    IF NOT pg_has_role(session_user, 'login_ingest_loader', 'MEMBER') THEN
        PERFORM login_ingest.record_audit('links.write', json_build_object(
            'links', cardinality(p_old_tokens))::text);
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.link_tokens TO login_ingest_loader, login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.link_tokens IS
'Links old tokens to new tokens. Three arrays of equal length.';

RESET ROLE;
