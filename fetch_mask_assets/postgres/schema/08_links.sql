-- Links from old tokens to new ones, and the view under which equal stays equal.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.token_link (
    field text NOT NULL REFERENCES login_ingest.masked_field,
    old_token text NOT NULL,
    new_token text NOT NULL,
    linked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (field, old_token),
    CONSTRAINT token_link_new_token_check CHECK (starts_with(new_token, field || ':')),
    CONSTRAINT token_or_md5 CHECK (
        starts_with(old_token, field || ':') OR old_token ~ '^([0-9a-f]{32}|[0-9A-F]{32})$'
    ),
    CONSTRAINT two_tokens CHECK (old_token <> new_token)
);
CREATE INDEX token_link_new_token ON login_ingest.token_link (field, new_token);
GRANT SELECT ON login_ingest.token_link TO login_ingest_analyst, login_ingest_recovery;
COMMENT ON TABLE login_ingest.token_link IS
'Tokens of one value under different keys, old to newest. For extracts that hold old tokens, and '
'for the view user_logins_linked.';
COMMENT ON COLUMN login_ingest.token_link.field IS 'The field whose tokens they are.';
COMMENT ON COLUMN login_ingest.token_link.old_token IS 'A token under another key than the newest.';
COMMENT ON COLUMN login_ingest.token_link.new_token IS
'The token that all links of the value end at.';
COMMENT ON COLUMN login_ingest.token_link.linked_at IS 'When the link got the end that it has.';
COMMENT ON CONSTRAINT token_or_md5 ON login_ingest.token_link IS
'A token of the field, or the MD5 of one of its values.';
COMMENT ON CONSTRAINT two_tokens ON login_ingest.token_link IS 'A token is not linked to itself.';
COMMENT ON INDEX login_ingest.token_link_new_token IS
'Finds the links that a next rotation takes on.';

-- The columns that readers of user_logins know, and no others that a table may have.
CREATE FUNCTION login_ingest.make_linked_views() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns text;
    joins text;
    masked record;
BEGIN
    SELECT string_agg(CASE WHEN field.name IS NULL THEN format('login.%I', known.column_name)
                           ELSE format('coalesce(%I.new_token, login.%I) AS %2$I',
                                       'of_' || field.name, known.column_name) END,
                      ', ' ORDER BY known.place),
           string_agg(format('
               LEFT JOIN login_ingest.token_link AS %1$I
                   ON %1$I.field = %2$L AND %1$I.old_token = login.%3$I',
               'of_' || field.name, field.name, known.column_name), '' ORDER BY known.place)
               FILTER (WHERE field.name IS NOT NULL)
    INTO columns, joins
    FROM login_ingest.login_column AS known
    LEFT JOIN login_ingest.masked_field AS field ON field.token_column = known.column_name;
    EXECUTE format('
        CREATE OR REPLACE VIEW login_ingest.user_logins_linked AS
        SELECT %s FROM %s AS login %s', columns, login_ingest.user_logins(), joins);
    GRANT SELECT ON login_ingest.user_logins_linked TO login_ingest_analyst, login_ingest_recovery;
    COMMENT ON VIEW login_ingest.user_logins_linked IS
    'user_logins with every token at the end of its link: equal values are equal here at every '
    'moment, also while keys are rotated.';
    FOR masked IN SELECT token_column, description FROM login_ingest.masked_field LOOP
        EXECUTE format('COMMENT ON COLUMN login_ingest.user_logins_linked.%I IS %L',
                       masked.token_column, 'The newest token of ' || masked.description || '.');
    END LOOP;
END $$;
COMMENT ON FUNCTION login_ingest.make_linked_views IS 'Makes the view user_logins_linked.';

SELECT login_ingest.make_linked_views();

-- A value's links all end at one token, which has none itself. Four things keep it so:
-- - one writer at a time: two with different primary keys would link to each other's token;
-- - a link away from the token that a writer now links to goes, if the writer knows where it led
--   (its keyset has that key, and another primary), and is followed if not (a newer keyset's);
-- - links that ended at a token which is old now are taken on, before new ones are written;
-- - whatever then leads elsewhere is another value's, and is refused, unless it leads to a retired
--   key's token, which nothing can be under any more.
-- Every link is looked up by a key of the table, whatever the planner knows of the arrays.
CREATE FUNCTION login_ingest.upsert_links(p_field text, old_tokens text[], new_tokens text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM login_ingest.token_link WHERE ctid = ANY (ARRAY(
        SELECT back.place FROM unnest(old_tokens, new_tokens) AS given (old_token, new_token)
        CROSS JOIN LATERAL (
            SELECT link.ctid AS place FROM login_ingest.token_link AS link
            WHERE link.field = p_field
              AND link.old_token = given.new_token AND link.new_token = given.old_token OFFSET 0
        ) AS back
    ));

    UPDATE login_ingest.token_link AS earlier SET new_token = taken.newest, linked_at = now()
    FROM (
        SELECT here.place, coalesce((
            SELECT link.new_token FROM login_ingest.token_link AS link
            WHERE link.field = p_field AND link.old_token = given.new_token
        ), given.new_token) AS newest
        FROM unnest(old_tokens, new_tokens) AS given (old_token, new_token)
        CROSS JOIN LATERAL (
            SELECT link.ctid AS place FROM login_ingest.token_link AS link
            WHERE link.field = p_field AND link.new_token = given.old_token OFFSET 0
        ) AS here
    ) AS taken
    WHERE earlier.ctid = taken.place;

    IF EXISTS (
        SELECT FROM (
            SELECT given.old_token, coalesce((
                SELECT link.new_token FROM login_ingest.token_link AS link
                WHERE link.field = p_field AND link.old_token = given.new_token
            ), given.new_token) AS newest, (
                SELECT link.new_token FROM login_ingest.token_link AS link
                WHERE link.field = p_field AND link.old_token = given.old_token
            ) AS present
            FROM unnest(old_tokens, new_tokens) AS given (old_token, new_token) OFFSET 0
        ) AS linked
        WHERE present <> newest AND NOT EXISTS (
            SELECT FROM login_ingest.masking_key AS ending
            WHERE ending.keyset = p_field AND ending.retired_at IS NOT NULL
              AND ending.key_id = login_ingest.token_key(present)
        )
    ) THEN
        RAISE EXCEPTION 'a token is linked to another one already'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'one_link';
    END IF;

    INSERT INTO login_ingest.token_link (field, old_token, new_token)
    SELECT DISTINCT ON (old_token) p_field, old_token, newest
    FROM (
        SELECT given.old_token, coalesce((
            SELECT link.new_token FROM login_ingest.token_link AS link
            WHERE link.field = p_field AND link.old_token = given.new_token
        ), given.new_token) AS newest, (
            SELECT link.new_token FROM login_ingest.token_link AS link
            WHERE link.field = p_field AND link.old_token = given.old_token
        ) AS present
        FROM unnest(old_tokens, new_tokens) AS given (old_token, new_token) OFFSET 0
    ) AS linked
    WHERE present IS DISTINCT FROM newest
    ORDER BY old_token
    ON CONFLICT (field, old_token) DO UPDATE
    SET new_token = excluded.new_token, linked_at = excluded.linked_at;
END $$;

CREATE FUNCTION login_ingest.link_tokens(
    fields text[],
    old_tokens text[],
    new_tokens text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part record;
BEGIN
    FOR part IN
        SELECT field, array_agg(old_token) AS old_tokens, array_agg(new_token) AS new_tokens
        FROM unnest(fields, old_tokens, new_tokens) AS given (field, old_token, new_token)
        GROUP BY field ORDER BY field
    LOOP
        PERFORM login_ingest.require_known(
            part.field, login_ingest.token_keys(part.field, part.old_tokens));
        PERFORM login_ingest.require_usable(
            part.field, login_ingest.token_keys(part.field, part.new_tokens));
        PERFORM login_ingest.wait_for_lock('links');
        PERFORM login_ingest.upsert_links(part.field, part.old_tokens, part.new_tokens);
    END LOOP;
    IF NOT pg_has_role(session_user, 'login_ingest_loader', 'MEMBER') THEN
        PERFORM login_ingest.record_audit('links.write', json_build_object(
            'links', cardinality(old_tokens))::text);
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.link_tokens TO login_ingest_loader, login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.link_tokens IS
'Links old tokens to new ones; gives nothing back. Three arrays of equal length.';

RESET ROLE;
