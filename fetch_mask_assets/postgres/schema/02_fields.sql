-- Fields of a login event that have a column in user_logins, and the format of their tokens. The
-- rest of the schema reads masked fields from here and names none.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.login_column (
    column_name text PRIMARY KEY,
    ordinal_position integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    description text NOT NULL
);
GRANT SELECT ON login_ingest.login_column TO login_ingest_loader;
GRANT SELECT ON login_ingest.login_column TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.login_column IS
'Columns of user_logins that the views contain. The table may have other columns. Written by '
'add_clear_field and add_masked_field.';
COMMENT ON COLUMN login_ingest.login_column.ordinal_position IS
'Order of the columns in the views.';
COMMENT ON COLUMN login_ingest.login_column.description IS
'Comment of the column in user_logins, if a migration created the table.';

CREATE TABLE login_ingest.masked_field (
    name text PRIMARY KEY,
    token_column text NOT NULL UNIQUE REFERENCES login_ingest.login_column,
    min_token_length integer NOT NULL,
    max_token_length integer NOT NULL,
    singular text NOT NULL,
    plural text NOT NULL,
    description text NOT NULL,
    CONSTRAINT name_valid CHECK (name ~ '^[a-z][a-z0-9_]*$'),
    CONSTRAINT name_not_reserved CHECK (name NOT IN ('quarantine', 'user')),
    CONSTRAINT words_valid CHECK (
        singular ~ '^[A-Za-z][A-Za-z0-9_]*$' AND plural ~ '^[A-Za-z][A-Za-z0-9_]*$'
    ),
    CONSTRAINT token_lengths_valid CHECK (
        length(name) + 1 < min_token_length AND min_token_length <= max_token_length
    )
);
CREATE UNIQUE INDEX masked_field_singular ON login_ingest.masked_field (lower(singular));
CREATE UNIQUE INDEX masked_field_plural ON login_ingest.masked_field (lower(plural));
GRANT SELECT ON login_ingest.masked_field TO login_ingest_loader;
GRANT SELECT ON login_ingest.masked_field TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.masked_field IS
'Fields that user_logins contains as tokens. A token is the name of the field, a colon and '
'base64url. Written by add_masked_field.';
COMMENT ON COLUMN login_ingest.masked_field.name IS
'Name of the field in the login event, of its keyset, and prefix of its tokens.';
COMMENT ON COLUMN login_ingest.masked_field.token_column IS
'Column of user_logins that contains the tokens.';
COMMENT ON COLUMN login_ingest.masked_field.min_token_length IS
'In characters, including the name and the colon.';
COMMENT ON COLUMN login_ingest.masked_field.max_token_length IS
'In characters, including the name and the colon.';
COMMENT ON COLUMN login_ingest.masked_field.singular IS
'Word for one value. In lower case, part of the name of a view, such as device_users.';
COMMENT ON COLUMN login_ingest.masked_field.plural IS
'Word for several values. In lower case, part of the name of a view, such as repeated_devices.';
COMMENT ON COLUMN login_ingest.masked_field.description IS
'Name of a value in comments, such as "the device id".';
COMMENT ON CONSTRAINT name_not_reserved ON login_ingest.masked_field IS
'The keyset that seals messages, and the erasure of users, have these names.';

-- Functions raise check_violation with the name of the violated rule as its constraint.
CREATE FUNCTION login_ingest.token_column(p_field text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    column_name text;
BEGIN
    SELECT token_column INTO column_name FROM login_ingest.masked_field WHERE name = p_field;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the field is not a masked field'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'masked_field_exists';
    END IF;
    RETURN column_name;
END $$;
COMMENT ON FUNCTION login_ingest.token_column IS
'Returns the column of user_logins that contains the tokens of a field. Raises '
'masked_field_exists if it is not a masked field.';

CREATE FUNCTION login_ingest.token_field(p_token text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (
    SELECT name FROM login_ingest.masked_field
    WHERE
        name = split_part(p_token, ':', 1)
        AND length(p_token) BETWEEN min_token_length AND max_token_length
        AND p_token ~ '^[a-z0-9_]+:[A-Za-z0-9_-]+$'
);
COMMENT ON FUNCTION login_ingest.token_field IS
'Returns the field of a token, from its prefix and its format. Null if the text is not a token.';

-- The key id is in the four bytes after the version byte, which is 1. It ends in the seventh
-- character, whose last two bits belong to the ciphertext.
-- Source: https://developers.google.com/tink/wire-format
CREATE FUNCTION login_ingest.token_key_id(p_token text) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN p_token ~ '^[a-z][a-z0-9_]*:A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{5}'
        THEN ('x' || encode(substr(decode(translate(
            left(split_part(p_token, ':', 2), 7), '-_', '+/'
        ) || 'A', 'base64'), 2, 4), 'hex'))::bit(32)::bigint
END;
COMMENT ON FUNCTION login_ingest.token_key_id IS
'Returns the id of the key of a token. Null if the text is not a token.';

-- Lengths are checked beside the pattern: a bound in the pattern, such as {48,244}, costs 0.2 ms
-- for each token.
CREATE FUNCTION login_ingest.token_key_ids(p_field text, p_tokens text[]) RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    format login_ingest.masked_field;
    pattern text := '^' || p_field || ':A[QRSTUVWXYZabcdef][A-Za-z0-9_-]+$';
BEGIN
    SELECT * INTO format FROM login_ingest.masked_field WHERE name = p_field;
    IF NOT FOUND OR EXISTS (
        SELECT FROM unnest(p_tokens) AS token
        WHERE (length(token) BETWEEN format.min_token_length AND format.max_token_length
               AND token ~ pattern) IS NOT TRUE
    ) THEN
        RAISE EXCEPTION 'a text is not a token of the field'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'token_valid';
    END IF;
    RETURN ARRAY(
        SELECT DISTINCT login_ingest.token_key_id(head) FROM (
            SELECT DISTINCT left(token, length(p_field) + 8) AS head
            FROM unnest(p_tokens) AS token
        ) AS heads ORDER BY 1
    );
END $$;
COMMENT ON FUNCTION login_ingest.token_key_ids IS
'Returns the distinct key ids of tokens of a field. Raises token_valid if a text is not a token '
'of the field.';

RESET ROLE;
