-- The fields of a login event that have a column in user_logins, and the form of their tokens.
-- Nothing else in the schema names a masked field: functions look it up, and tables refer to it.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.login_column (
    column_name text PRIMARY KEY,
    place integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    description text NOT NULL
);
GRANT SELECT ON login_ingest.login_column TO login_ingest_loader;
GRANT SELECT ON login_ingest.login_column TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.login_column IS
'The columns of user_logins that its readers know; a table may have others. Written by '
'add_clear_field and add_masked_field.';
COMMENT ON COLUMN login_ingest.login_column.place IS 'The order of the columns in the views.';
COMMENT ON COLUMN login_ingest.login_column.description IS
'The comment of the column in user_logins, where the table is ours.';

CREATE TABLE login_ingest.masked_field (
    name text PRIMARY KEY,
    token_column text NOT NULL UNIQUE REFERENCES login_ingest.login_column,
    min_token_length integer NOT NULL,
    max_token_length integer NOT NULL,
    singular text NOT NULL,
    plural text NOT NULL,
    description text NOT NULL,
    CONSTRAINT plain_name CHECK (name ~ '^[a-z][a-z0-9_]*$'),
    CONSTRAINT other_name CHECK (name NOT IN ('quarantine', 'user')),
    CONSTRAINT plain_words CHECK (
        singular ~ '^[A-Za-z][A-Za-z0-9_]*$' AND plural ~ '^[A-Za-z][A-Za-z0-9_]*$'
    ),
    CONSTRAINT token_lengths CHECK (
        length(name) + 1 < min_token_length AND min_token_length <= max_token_length
    )
);
CREATE UNIQUE INDEX masked_field_singular ON login_ingest.masked_field (lower(singular));
CREATE UNIQUE INDEX masked_field_plural ON login_ingest.masked_field (lower(plural));
GRANT SELECT ON login_ingest.masked_field TO login_ingest_loader;
GRANT SELECT ON login_ingest.masked_field TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.masked_field IS
'The fields that user_logins holds as tokens. A token is the name of its field, a colon and '
'base64url. Written by add_masked_field.';
COMMENT ON COLUMN login_ingest.masked_field.name IS
'The name in the login event, of the keyset, and before the colon in every token.';
COMMENT ON COLUMN login_ingest.masked_field.token_column IS
'The column of user_logins that holds the tokens.';
COMMENT ON COLUMN login_ingest.masked_field.min_token_length IS
'In characters, with the name and the colon.';
COMMENT ON COLUMN login_ingest.masked_field.max_token_length IS
'In characters, with the name and the colon.';
COMMENT ON COLUMN login_ingest.masked_field.singular IS
'One value of the field, in a word. In lower case it names a view: device makes device_users.';
COMMENT ON COLUMN login_ingest.masked_field.plural IS
'Several values of the field, in a word. In lower case it names a view: devices makes '
'repeated_devices.';
COMMENT ON COLUMN login_ingest.masked_field.description IS
'What the comments call a value of the field, such as "the device id".';
COMMENT ON CONSTRAINT other_name ON login_ingest.masked_field IS
'The names of the keyset that seals messages, and of the erasure of users.';

-- Refuses what is no masked field. The name of the constraint is what callers know it by.
CREATE FUNCTION login_ingest.token_column(p_field text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_column text;
BEGIN
    SELECT token_column INTO found_column FROM login_ingest.masked_field WHERE name = p_field;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'not a masked field'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'is_a_masked_field';
    END IF;
    RETURN found_column;
END $$;
COMMENT ON FUNCTION login_ingest.token_column IS
'The column of user_logins that holds the tokens of a field; refuses what is no masked field '
'(is_a_masked_field).';

CREATE FUNCTION login_ingest.token_field(token text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (
    SELECT name FROM login_ingest.masked_field
    WHERE
        name = split_part(token, ':', 1)
        AND length(token) BETWEEN min_token_length AND max_token_length
        AND token ~ '^[a-z0-9_]+:[A-Za-z0-9_-]+$'
);
COMMENT ON FUNCTION login_ingest.token_field IS
'The field whose token a text may be, by its form; null if it can be none.';

-- A key's id is in the four bytes after the version byte, 1: it ends in the seventh character,
-- whose last two bits are the ciphertext's. Source: https://developers.google.com/tink/wire-format
CREATE FUNCTION login_ingest.token_key(token text) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN token ~ '^[a-z][a-z0-9_]*:A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{5}'
        THEN ('x' || encode(substr(decode(translate(
            left(split_part(token, ':', 2), 7), '-_', '+/'
        ) || 'A', 'base64'), 2, 4), 'hex'))::bit(32)::bigint
END;
COMMENT ON FUNCTION login_ingest.token_key IS
'The id of the key that a token is under; null if it is under none.';

-- Lengths beside the pattern: a count in it, such as {48,244}, costs a fifth of a millisecond for
-- each token. Distinct ids only: a batch has thousands of tokens under one key or two.
CREATE FUNCTION login_ingest.token_keys(p_field text, tokens text[]) RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    form login_ingest.masked_field;
    pattern text := '^' || p_field || ':A[QRSTUVWXYZabcdef][A-Za-z0-9_-]+$';
BEGIN
    SELECT * INTO form FROM login_ingest.masked_field WHERE name = p_field;
    IF NOT FOUND OR EXISTS (
        SELECT FROM unnest(tokens) AS token
        WHERE (length(token) BETWEEN form.min_token_length AND form.max_token_length
               AND token ~ pattern) IS NOT TRUE
    ) THEN
        RAISE EXCEPTION 'not a token of the field'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'is_a_token';
    END IF;
    RETURN ARRAY(
        SELECT DISTINCT login_ingest.token_key(head) FROM (
            SELECT DISTINCT left(token, length(p_field) + 8) AS head
            FROM unnest(tokens) AS token
        ) AS heads ORDER BY 1
    );
END $$;
COMMENT ON FUNCTION login_ingest.token_keys IS
'The ids of the keys that tokens of a field are under; refuses what is none (is_a_token).';

RESET ROLE;
