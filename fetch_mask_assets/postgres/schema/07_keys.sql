-- The key registry. It identifies keys by check values; keys are never in the database.

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
'Keys that were used, with check values that identify them and do not reveal them.';
COMMENT ON COLUMN login_ingest.masking_key.keyset IS 'Name of a masked field, or quarantine.';
COMMENT ON COLUMN login_ingest.masking_key.field IS
'Masked field whose tokens are under the key. Null for quarantine.';
COMMENT ON COLUMN login_ingest.masking_key.key_id IS 'Key id of Tink.';
COMMENT ON COLUMN login_ingest.masking_key.check_value IS
'Fixed text encrypted with the key. Differs between keys with the same id.';
COMMENT ON COLUMN login_ingest.masking_key.retired_at IS
'Time of retirement: nothing is written under a retired key. Null while the key is usable.';

-- Inherited membership counts. A role that was dropped is not a member.
CREATE FUNCTION login_ingest.is_recovery_member(p_role text) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = login_ingest, pg_temp
RETURN EXISTS (
    SELECT FROM pg_roles
    WHERE rolname = p_role AND pg_has_role(oid, 'login_ingest_recovery', 'MEMBER')
);

CREATE FUNCTION login_ingest.require_recovery_member() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT login_ingest.is_recovery_member(session_user) THEN
        RAISE EXCEPTION 'session_user is not a member of login_ingest_recovery'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

CREATE FUNCTION login_ingest.register_keys(
    p_keysets text[],
    p_key_ids bigint[],
    p_check_values bytea[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM login_ingest.wait_for_lock('registry');
    IF EXISTS (
        SELECT FROM unnest(p_keysets, p_key_ids, p_check_values)
            AS input (keyset, key_id, check_value)
        LEFT JOIN login_ingest.masking_key AS registered
               ON (registered.keyset, registered.key_id) = (input.keyset, input.key_id)
               OR registered.check_value = input.check_value
        WHERE ((input.keyset = 'quarantine'
                OR EXISTS (SELECT FROM login_ingest.masked_field WHERE name = input.keyset))
               AND input.key_id BETWEEN 0 AND 4294967295
               AND length(input.check_value) > 0) IS NOT TRUE
           OR (registered.keyset, registered.key_id, registered.check_value)
              <> (input.keyset, input.key_id, input.check_value)
    ) OR EXISTS (
        SELECT FROM unnest(p_keysets, p_check_values) AS input (keyset, check_value)
        GROUP BY input.check_value HAVING count(*) > 1
    ) THEN
        RAISE EXCEPTION 'a key conflicts with the key registry'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'key_conflict';
    END IF;
    INSERT INTO login_ingest.masking_key (keyset, key_id, check_value)
    SELECT * FROM unnest(p_keysets, p_key_ids, p_check_values)
    ON CONFLICT (keyset, key_id) DO NOTHING;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.register_keys TO login_ingest_loader, login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.register_keys IS
'Adds keys to the registry. Raises key_conflict if one conflicts with a registered key. Three '
'arrays of equal length.';

CREATE FUNCTION login_ingest.require_registered_keys(p_keyset text, p_key_ids bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (
        SELECT unnest(p_key_ids)
        EXCEPT SELECT key_id FROM login_ingest.masking_key WHERE keyset = p_keyset
    ) THEN
        RAISE EXCEPTION 'a key is not registered'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'key_registered';
    END IF;
END $$;

-- Writers under the keys share the locks until they commit. retire_key waits for them.
CREATE FUNCTION login_ingest.lock_keys(
    p_keysets text[],
    p_key_ids bigint[]
) RETURNS TABLE (keyset text, key_id bigint, is_registered boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM login_ingest.masking_key AS registered
    WHERE (registered.keyset, registered.key_id) IN (SELECT * FROM unnest(p_keysets, p_key_ids))
    ORDER BY registered.keyset, registered.key_id FOR SHARE;
    RETURN QUERY
    SELECT input.keyset, input.key_id, registered.keyset IS NOT NULL
    FROM unnest(p_keysets, p_key_ids) AS input (keyset, key_id)
    LEFT JOIN login_ingest.masking_key AS registered
           ON registered.keyset = input.keyset AND registered.key_id = input.key_id
    WHERE registered.keyset IS NULL OR registered.retired_at IS NOT NULL;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.lock_keys TO login_ingest_loader, login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.lock_keys IS
'Prevents the retirement of keys until the transaction ends. Returns the keys that are retired or '
'not registered.';

CREATE FUNCTION login_ingest.require_usable_keys(p_keyset text, p_key_ids bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM login_ingest.lock_keys(
        array_fill(p_keyset, ARRAY[cardinality(p_key_ids)]), p_key_ids)) THEN
        RAISE EXCEPTION 'a key is retired or not registered'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'key_usable';
    END IF;
END $$;

RESET ROLE;
