-- The masked fields and the form of their tokens.

SET ROLE login_ingest_owner;

-- Lengths beside the pattern: a count in it, such as {48,244}, costs a fifth of a millisecond.
CREATE FUNCTION login_ingest.is_token(p_field text, token text) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN CASE p_field
    WHEN 'ip'
        THEN
            length(token) = 53
            AND token ~ '^ip:A[QRSTUVWXYZabcdef][A-Za-z0-9_-]+$'
    WHEN 'device_id'
        THEN
            length(token) BETWEEN 60 AND 256
            AND token ~ '^device_id:A[QRSTUVWXYZabcdef][A-Za-z0-9_-]+$'
    ELSE false
END;

-- A key's id is in the four bytes after the version byte, 1: it ends in the seventh character,
-- whose last two bits are the ciphertext's. Source: https://developers.google.com/tink/wire-format
CREATE FUNCTION login_ingest.token_key(token text) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN token ~ '^(ip|device_id):A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{5}'
        THEN ('x' || encode(substr(decode(translate(
            left(split_part(token, ':', 2), 7), '-_', '+/'
        ) || 'A', 'base64'), 2, 4), 'hex'))::bit(32)::bigint
END;

-- Distinct ids only: a batch has thousands of tokens under one key or two.
CREATE FUNCTION login_ingest.token_keys(p_field text, tokens text[]) RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (
        SELECT FROM unnest(tokens) AS token
        WHERE login_ingest.is_token(p_field, token) IS NOT TRUE
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

RESET ROLE;
