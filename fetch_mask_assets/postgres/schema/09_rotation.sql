-- Rotation: old tokens are replaced by new ones, and a key that no row needs is retired.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.token_change (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action text NOT NULL CHECK (action IN ('remask', 'replace-digests')),
    field text NOT NULL REFERENCES login_ingest.masked_field,
    person text NOT NULL DEFAULT session_user,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    gone_on_by bigint REFERENCES login_ingest.token_change,
    from_keys bigint[] NOT NULL DEFAULT '{}',
    to_keys bigint[] NOT NULL DEFAULT '{}',
    links bigint NOT NULL DEFAULT 0,
    changed bigint NOT NULL DEFAULT 0
);
GRANT SELECT ON login_ingest.token_change TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.token_change IS
'Changes of many tokens at once: who, from which keys to which, how many rows. Written by '
'functions only.';
COMMENT ON COLUMN login_ingest.token_change.person IS 'The session_user who began it.';
COMMENT ON COLUMN login_ingest.token_change.ended_at IS
'Null while it is under way, or if it was killed.';
COMMENT ON COLUMN login_ingest.token_change.gone_on_by IS 'The change that goes on with this one.';
COMMENT ON COLUMN login_ingest.token_change.from_keys IS 'Key ids of the tokens that went.';
COMMENT ON COLUMN login_ingest.token_change.to_keys IS 'Key ids of the tokens that came.';
COMMENT ON COLUMN login_ingest.token_change.links IS 'Links that were written.';
COMMENT ON COLUMN login_ingest.token_change.changed IS 'Rows of user_logins.';

CREATE FUNCTION login_ingest.require_bounded(old_tokens text[], new_tokens text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (cardinality(old_tokens) = cardinality(new_tokens) AND cardinality(new_tokens) <= 20000)
       IS NOT TRUE THEN
        RAISE EXCEPTION 'not so many at once' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

CREATE FUNCTION login_ingest.require_to(
    doing login_ingest.token_change,
    key_ids bigint[]
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM login_ingest.require_usable(doing.field, key_ids);
    IF NOT key_ids <@ doing.to_keys THEN
        RAISE EXCEPTION 'a token under another key than the change is to'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'key_of_the_change';
    END IF;
END $$;

-- What a killed change did is in the database and not in the audit yet: the next one says it.
CREATE FUNCTION login_ingest.begin_change(
    the_action text,
    the_field text,
    the_keys bigint[],
    OUT change bigint,
    OUT unfinished bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    left_open json;
BEGIN
    PERFORM login_ingest.require_recovery();
    PERFORM login_ingest.require_usable(the_field, the_keys);
    INSERT INTO login_ingest.token_change (action, field, to_keys)
    VALUES (the_action, the_field, the_keys) RETURNING change_id INTO change;
    WITH killed AS (
        UPDATE login_ingest.token_change SET gone_on_by = change
        WHERE action = the_action AND field = the_field AND ended_at IS NULL
          AND gone_on_by IS NULL AND change_id <> change
        RETURNING change_id AS change, person, from_keys, to_keys, links, changed AS rows
    )
    SELECT coalesce(json_agg(killed ORDER BY killed.change), '[]'), count(*)
    INTO left_open, unfinished FROM killed;
    PERFORM login_ingest.record_audit(the_action || '.begin', json_build_object(
        'change', change, 'field', the_field, 'to_keys', the_keys,
        'goes_on_with', left_open)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.begin_change TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.begin_change IS
'Begins a change to tokens under the given keys, and goes on with those of its kind that were '
'killed: how many.';

CREATE FUNCTION login_ingest.open_change(
    the_change bigint,
    the_action text
) RETURNS login_ingest.token_change
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    opened login_ingest.token_change;
BEGIN
    PERFORM login_ingest.require_recovery();
    SELECT * INTO opened FROM login_ingest.token_change
    WHERE change_id = the_change AND action = the_action AND person = session_user
      AND ended_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no change of this person is under way'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN opened;
END $$;

CREATE FUNCTION login_ingest.count_change(
    the_change bigint,
    old_keys bigint[],
    new_keys bigint[],
    more_links bigint,
    more_rows bigint
) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE login_ingest.token_change
    SET links = links + more_links, changed = changed + more_rows,
        from_keys = ARRAY(SELECT DISTINCT unnest(from_keys || old_keys) ORDER BY 1),
        to_keys = ARRAY(SELECT DISTINCT unnest(to_keys || new_keys) ORDER BY 1)
    WHERE change_id = the_change
$$;

CREATE FUNCTION login_ingest.end_change(the_change bigint, the_action text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    done login_ingest.token_change;
BEGIN
    -- Repeated because the answer to the first was lost.
    IF EXISTS (SELECT FROM login_ingest.token_change WHERE change_id = the_change
               AND person = session_user AND ended_at IS NOT NULL) THEN
        RETURN;
    END IF;
    done := login_ingest.open_change(the_change, the_action);
    UPDATE login_ingest.token_change SET ended_at = clock_timestamp()
    WHERE change_id = the_change;
    PERFORM login_ingest.record_audit(the_action || '.end', json_build_object(
        'change', the_change, 'field', done.field, 'from_keys', done.from_keys,
        'to_keys', done.to_keys, 'links', done.links, 'rows', done.changed)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.end_change TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.end_change IS 'Ends a change and records what it did.';

CREATE FUNCTION login_ingest.link_in_change(
    the_change bigint,
    old_tokens text[],
    new_tokens text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    doing login_ingest.token_change := login_ingest.open_change(the_change, 'remask');
BEGIN
    PERFORM login_ingest.require_bounded(old_tokens, new_tokens);
    PERFORM login_ingest.require_known(
        doing.field, login_ingest.token_keys(doing.field, old_tokens));
    PERFORM login_ingest.require_to(doing, login_ingest.token_keys(doing.field, new_tokens));
    PERFORM login_ingest.wait_turn('links');
    PERFORM login_ingest.put_links(doing.field, old_tokens, new_tokens);
    PERFORM login_ingest.count_change(the_change, '{}', '{}', cardinality(old_tokens), 0);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.link_in_change TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.link_in_change IS
'Links old tokens to new ones within a re-masking. Two arrays of equal length.';

-- A token becomes another one only where both are at the end of the same link: nothing that the
-- view shows changes. A row that another session has just changed is not touched.
CREATE FUNCTION login_ingest.replace_tokens(
    the_change bigint,
    old_tokens text[],
    new_tokens text[],
    at_most integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    doing login_ingest.token_change := login_ingest.open_change(the_change, 'remask');
    old_keys bigint[] := login_ingest.token_keys(doing.field, old_tokens);
    replaced bigint;
BEGIN
    PERFORM login_ingest.require_bounded(old_tokens, new_tokens);
    PERFORM login_ingest.require_to(doing, login_ingest.token_keys(doing.field, new_tokens));
    EXECUTE format($sql$
        WITH replacement AS (
            SELECT given.old_token, given.new_token
            FROM unnest($1, $2) AS given (old_token, new_token)
            WHERE coalesce((
                SELECT link.new_token FROM login_ingest.token_link AS link
                WHERE link.field = $3 AND link.old_token = given.old_token
            ), given.old_token) = coalesce((
                SELECT link.new_token FROM login_ingest.token_link AS link
                WHERE link.field = $3 AND link.old_token = given.new_token
            ), given.new_token)
              AND given.old_token <> given.new_token
        ), chosen AS (
            SELECT login.tableoid AS part, login.ctid AS place, old_token, new_token
            FROM replacement JOIN %2$s AS login ON login.%1$I = old_token
            LIMIT $4
        )
        UPDATE %2$s AS login SET %1$I = chosen.new_token FROM chosen
        WHERE login.ctid = chosen.place AND login.tableoid = chosen.part
          AND login.%1$I = chosen.old_token
    $sql$, login_ingest.token_column(doing.field), login_ingest.user_logins())
    USING old_tokens, new_tokens, doing.field, least(at_most, 5000);
    GET DIAGNOSTICS replaced = ROW_COUNT;
    IF replaced > 0 THEN
        PERFORM login_ingest.count_change(the_change, old_keys, '{}', 0, replaced);
    END IF;
    RETURN replaced;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.replace_tokens TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.replace_tokens IS
'Replaces linked tokens in user_logins within a re-masking, in at most so many rows: how many.';

-- Texts in the order of their bytes: the operators of the indexes on the tokens. Of the four ranges
-- each is for one value of the two bits behind the key id.
CREATE FUNCTION login_ingest.rows_under(the_keyset text, the_key bigint) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    prefix bytea := decode('01' || lpad(to_hex(the_key), 8, '0'), 'hex');
    bits integer;
    low text;
    high text;
    counted bigint;
    found_rows bigint := 0;
BEGIN
    IF the_keyset = 'quarantine' THEN
        RETURN (SELECT count(*) FROM login_ingest.quarantine
                WHERE substr(sealed_body, 1, 5) = prefix AND length(sealed_body) > 5);
    END IF;
    FOREACH bits IN ARRAY ARRAY[0, 64, 128, 192] LOOP
        low := the_keyset || ':' || left(translate(encode(
            prefix || set_byte('\x00'::bytea, 0, bits), 'base64'), '+/', '-_'), 7);
        high := left(low, -1) || chr(ascii(right(low, 1)) + 1);
        EXECUTE format(
            'SELECT count(*) FROM %2$s WHERE %1$I ~>=~ $1 AND %1$I ~<~ $2',
            login_ingest.token_column(the_keyset), login_ingest.user_logins()
        ) INTO counted USING low, high;
        found_rows := found_rows + counted + (
            SELECT count(*) FROM login_ingest.md5_match
            WHERE field = the_keyset AND new_token ~>=~ low AND new_token ~<~ high);
    END LOOP;
    RETURN found_rows;
END $$;

-- First the key, which waits for all who write under it; then the count, which sees what they
-- wrote.
CREATE FUNCTION login_ingest.retire_key(the_keyset text, the_key bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    needed bigint;
BEGIN
    PERFORM login_ingest.require_recovery();
    PERFORM login_ingest.wait_turn('registry');
    PERFORM FROM login_ingest.masking_key
    WHERE keyset = the_keyset AND key_id = the_key FOR UPDATE;
    needed := login_ingest.rows_under(the_keyset, the_key);
    IF needed > 0 THEN
        RETURN needed;
    END IF;
    UPDATE login_ingest.masking_key SET retired_at = now()
    WHERE keyset = the_keyset AND key_id = the_key AND retired_at IS NULL;
    PERFORM login_ingest.record_audit('keys.retire', json_build_object(
        'keyset', the_keyset, 'key_id', the_key)::text);
    RETURN 0;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.retire_key TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.retire_key IS
'Retires a key that nothing is under. 0 if it did; else how many rows need the key.';

CREATE FUNCTION login_ingest.restore_key(the_keyset text, the_key bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM login_ingest.require_recovery();
    PERFORM login_ingest.wait_turn('registry');
    UPDATE login_ingest.masking_key SET retired_at = NULL
    WHERE keyset = the_keyset AND key_id = the_key;
    PERFORM login_ingest.record_audit('keys.restore', json_build_object(
        'keyset', the_keyset, 'key_id', the_key)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.restore_key TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.restore_key IS 'Takes the retirement of a key back.';

RESET ROLE;
