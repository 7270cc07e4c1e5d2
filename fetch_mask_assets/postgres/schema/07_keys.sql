-- The key registry. It tells keys apart; the keys themselves are never in the database.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.masking_key (
    keyset text NOT NULL,
    key_id bigint NOT NULL,
    check_value bytea NOT NULL,
    first_used_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    field text GENERATED ALWAYS AS (nullif(keyset, 'quarantine')) STORED
    REFERENCES login_ingest.masked_field,
    PRIMARY KEY (keyset, key_id)
);
GRANT SELECT ON login_ingest.masking_key TO login_ingest_loader;
GRANT SELECT ON login_ingest.masking_key TO login_ingest_recovery;
GRANT SELECT ON login_ingest.masking_key TO login_ingest_auditor;
COMMENT ON TABLE login_ingest.masking_key IS
'Check values that tell keys apart and do not give them.';
COMMENT ON COLUMN login_ingest.masking_key.keyset IS 'A masked field, or quarantine.';
COMMENT ON COLUMN login_ingest.masking_key.field IS
'The masked field whose tokens are under the key; null for the quarantine.';
COMMENT ON COLUMN login_ingest.masking_key.key_id IS 'The id that Tink gave the key.';
COMMENT ON COLUMN login_ingest.masking_key.check_value IS
'What the key makes of a fixed text: two keys of one id differ in it.';
COMMENT ON COLUMN login_ingest.masking_key.retired_at IS
'When the key was retired: nothing is written under it any more. Null while it is in use.';

-- Membership that is inherited counts too; a login that is gone is nobody's.
CREATE FUNCTION login_ingest.is_recovery(person text) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = login_ingest, pg_temp
RETURN EXISTS (
    SELECT FROM pg_roles
    WHERE rolname = person AND pg_has_role(oid, 'login_ingest_recovery', 'MEMBER')
);

CREATE FUNCTION login_ingest.require_recovery() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT login_ingest.is_recovery(session_user) THEN
        RAISE EXCEPTION 'not a member of recovery' USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

CREATE FUNCTION login_ingest.register_keys(
    keysets text[],
    key_ids bigint[],
    check_values bytea[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM login_ingest.wait_for_lock('registry');
    IF EXISTS (
        SELECT FROM unnest(keysets, key_ids, check_values) AS given (keyset, key_id, check_value)
        LEFT JOIN login_ingest.masking_key AS known
               ON (known.keyset, known.key_id) = (given.keyset, given.key_id)
               OR known.check_value = given.check_value
        WHERE ((given.keyset = 'quarantine'
                OR EXISTS (SELECT FROM login_ingest.masked_field WHERE name = given.keyset))
               AND given.key_id BETWEEN 0 AND 4294967295
               AND length(given.check_value) > 0) IS NOT TRUE
           OR (known.keyset, known.key_id, known.check_value)
              <> (given.keyset, given.key_id, given.check_value)
    ) OR EXISTS (
        SELECT FROM unnest(keysets, check_values) AS given (keyset, check_value)
        GROUP BY given.check_value HAVING count(*) > 1
    ) THEN
        RAISE EXCEPTION 'a key that conflicts with the registry'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'no_conflict';
    END IF;
    INSERT INTO login_ingest.masking_key (keyset, key_id, check_value)
    SELECT * FROM unnest(keysets, key_ids, check_values)
    ON CONFLICT (keyset, key_id) DO NOTHING;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.register_keys TO login_ingest_loader, login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.register_keys IS
'Adds keys to the registry; refuses one that conflicts with it (no_conflict). Three arrays of '
'equal length.';

CREATE FUNCTION login_ingest.require_known(p_keyset text, key_ids bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (
        SELECT unnest(key_ids)
        EXCEPT SELECT key_id FROM login_ingest.masking_key WHERE keyset = p_keyset
    ) THEN
        RAISE EXCEPTION 'a key that the registry does not know'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'key_is_known';
    END IF;
END $$;

-- Shared by all who write under the keys, until they have committed; retire_key waits for them.
CREATE FUNCTION login_ingest.lock_keys(
    keysets text[],
    key_ids bigint[]
) RETURNS TABLE (keyset text, key_id bigint, is_known boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM login_ingest.masking_key AS known
    WHERE (known.keyset, known.key_id) IN (SELECT * FROM unnest(keysets, key_ids))
    ORDER BY known.keyset, known.key_id FOR SHARE;
    RETURN QUERY
    SELECT given.keyset, given.key_id, known.keyset IS NOT NULL
    FROM unnest(keysets, key_ids) AS given (keyset, key_id)
    LEFT JOIN login_ingest.masking_key AS known
           ON known.keyset = given.keyset AND known.key_id = given.key_id
    WHERE known.keyset IS NULL OR known.retired_at IS NOT NULL;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.lock_keys TO login_ingest_loader, login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.lock_keys IS
'Keeps keys from being retired until the transaction ends. Gives those that are retired or not '
'registered.';

CREATE FUNCTION login_ingest.require_usable(p_keyset text, key_ids bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM login_ingest.lock_keys(
        array_fill(p_keyset, ARRAY[cardinality(key_ids)]), key_ids)) THEN
        RAISE EXCEPTION 'a key that is retired or not registered'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'key_is_in_use';
    END IF;
END $$;

RESET ROLE;
