-- Rotation: old tokens are replaced by new ones, and a key that no row needs is retired.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.remask_job (
    job_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action text NOT NULL CHECK (action IN ('remask', 'replace-digests')),
    field text NOT NULL REFERENCES login_ingest.masked_field,
    person text NOT NULL DEFAULT session_user,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    resumed_by bigint REFERENCES login_ingest.remask_job,
    from_keys bigint[] NOT NULL DEFAULT '{}',
    to_keys bigint[] NOT NULL DEFAULT '{}',
    links bigint NOT NULL DEFAULT 0,
    changed bigint NOT NULL DEFAULT 0
);
GRANT SELECT ON login_ingest.remask_job TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.remask_job IS
'Changes of many tokens at once: who, from which keys to which, how many rows. Written by '
'functions only.';
COMMENT ON COLUMN login_ingest.remask_job.person IS 'The session_user who began it.';
COMMENT ON COLUMN login_ingest.remask_job.ended_at IS
'Null while it is under way, or if it was killed.';
COMMENT ON COLUMN login_ingest.remask_job.resumed_by IS 'The change that goes on with this one.';
COMMENT ON COLUMN login_ingest.remask_job.from_keys IS 'Key ids of the tokens that went.';
COMMENT ON COLUMN login_ingest.remask_job.to_keys IS 'Key ids of the tokens that came.';
COMMENT ON COLUMN login_ingest.remask_job.links IS 'Links that were written.';
COMMENT ON COLUMN login_ingest.remask_job.changed IS 'Rows of user_logins.';

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

CREATE FUNCTION login_ingest.require_job_keys(
    doing login_ingest.remask_job,
    key_ids bigint[]
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM login_ingest.require_usable(doing.field, key_ids);
    IF NOT key_ids <@ doing.to_keys THEN
        RAISE EXCEPTION 'a token under another key than the change is to'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'key_of_job';
    END IF;
END $$;

-- What a killed change did is in the database and not in the audit yet: the next one says it.
CREATE FUNCTION login_ingest.begin_remask_job(
    p_action text,
    p_field text,
    p_keys bigint[],
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
    PERFORM login_ingest.require_usable(p_field, p_keys);
    INSERT INTO login_ingest.remask_job (action, field, to_keys)
    VALUES (p_action, p_field, p_keys) RETURNING job_id INTO change;
    WITH killed AS (
        UPDATE login_ingest.remask_job SET resumed_by = change
        WHERE action = p_action AND field = p_field AND ended_at IS NULL
          AND resumed_by IS NULL AND job_id <> change
        RETURNING job_id AS change, person, from_keys, to_keys, links, changed AS rows
    )
    SELECT coalesce(json_agg(killed ORDER BY killed.change), '[]'), count(*)
    INTO left_open, unfinished FROM killed;
    PERFORM login_ingest.record_audit(p_action || '.begin', json_build_object(
        'change', change, 'field', p_field, 'to_keys', p_keys,
        'resumes', left_open)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.begin_remask_job TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.begin_remask_job IS
'Begins a change to tokens under the given keys, and goes on with those of its kind that were '
'killed: how many.';

CREATE FUNCTION login_ingest.open_remask_job(
    p_job bigint,
    p_action text
) RETURNS login_ingest.remask_job
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    opened login_ingest.remask_job;
BEGIN
    PERFORM login_ingest.require_recovery();
    SELECT * INTO opened FROM login_ingest.remask_job
    WHERE job_id = p_job AND action = p_action AND person = session_user
      AND ended_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no change of this person is under way'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN opened;
END $$;

CREATE FUNCTION login_ingest.add_job_counts(
    p_job bigint,
    old_keys bigint[],
    new_keys bigint[],
    more_links bigint,
    more_rows bigint
) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE login_ingest.remask_job
    SET links = links + more_links, changed = changed + more_rows,
        from_keys = ARRAY(SELECT DISTINCT unnest(from_keys || old_keys) ORDER BY 1),
        to_keys = ARRAY(SELECT DISTINCT unnest(to_keys || new_keys) ORDER BY 1)
    WHERE job_id = p_job
$$;

CREATE FUNCTION login_ingest.finish_remask_job(p_job bigint, p_action text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    done login_ingest.remask_job;
BEGIN
    -- Repeated because the answer to the first was lost.
    IF EXISTS (SELECT FROM login_ingest.remask_job WHERE job_id = p_job
               AND person = session_user AND ended_at IS NOT NULL) THEN
        RETURN;
    END IF;
    done := login_ingest.open_remask_job(p_job, p_action);
    UPDATE login_ingest.remask_job SET ended_at = clock_timestamp()
    WHERE job_id = p_job;
    PERFORM login_ingest.record_audit(p_action || '.end', json_build_object(
        'change', p_job, 'field', done.field, 'from_keys', done.from_keys,
        'to_keys', done.to_keys, 'links', done.links, 'rows', done.changed)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.finish_remask_job TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.finish_remask_job IS 'Ends a change and records what it did.';

CREATE FUNCTION login_ingest.link_tokens_in_job(
    p_job bigint,
    old_tokens text[],
    new_tokens text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    doing login_ingest.remask_job := login_ingest.open_remask_job(p_job, 'remask');
BEGIN
    PERFORM login_ingest.require_bounded(old_tokens, new_tokens);
    PERFORM login_ingest.require_known(
        doing.field, login_ingest.token_keys(doing.field, old_tokens));
    PERFORM login_ingest.require_job_keys(doing, login_ingest.token_keys(doing.field, new_tokens));
    PERFORM login_ingest.wait_for_lock('links');
    PERFORM login_ingest.upsert_links(doing.field, old_tokens, new_tokens);
    PERFORM login_ingest.add_job_counts(p_job, '{}', '{}', cardinality(old_tokens), 0);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.link_tokens_in_job TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.link_tokens_in_job IS
'Links old tokens to new ones within a re-masking. Two arrays of equal length.';

-- A token becomes another one only where both are at the end of the same link: nothing that the
-- view shows changes. A row that another session has just changed is not touched.
CREATE FUNCTION login_ingest.replace_tokens(
    p_job bigint,
    old_tokens text[],
    new_tokens text[],
    at_most integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    doing login_ingest.remask_job := login_ingest.open_remask_job(p_job, 'remask');
    old_keys bigint[] := login_ingest.token_keys(doing.field, old_tokens);
    replaced bigint;
BEGIN
    PERFORM login_ingest.require_bounded(old_tokens, new_tokens);
    PERFORM login_ingest.require_job_keys(doing, login_ingest.token_keys(doing.field, new_tokens));
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
        PERFORM login_ingest.add_job_counts(p_job, old_keys, '{}', 0, replaced);
    END IF;
    RETURN replaced;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.replace_tokens TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.replace_tokens IS
'Replaces linked tokens in user_logins within a re-masking, in at most so many rows: how many.';

-- Texts in the order of their bytes: the operators of the indexes on the tokens. Of the four ranges
-- each is for one value of the two bits behind the key id.
CREATE FUNCTION login_ingest.rows_under(p_keyset text, p_key bigint) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    prefix bytea := decode('01' || lpad(to_hex(p_key), 8, '0'), 'hex');
    bits integer;
    low text;
    high text;
    counted bigint;
    found_rows bigint := 0;
BEGIN
    IF p_keyset = 'quarantine' THEN
        RETURN (SELECT count(*) FROM login_ingest.quarantine
                WHERE substr(sealed_body, 1, 5) = prefix AND length(sealed_body) > 5);
    END IF;
    FOREACH bits IN ARRAY ARRAY[0, 64, 128, 192] LOOP
        low := p_keyset || ':' || left(translate(encode(
            prefix || set_byte('\x00'::bytea, 0, bits), 'base64'), '+/', '-_'), 7);
        high := left(low, -1) || chr(ascii(right(low, 1)) + 1);
        EXECUTE format(
            'SELECT count(*) FROM %2$s WHERE %1$I ~>=~ $1 AND %1$I ~<~ $2',
            login_ingest.token_column(p_keyset), login_ingest.user_logins()
        ) INTO counted USING low, high;
        found_rows := found_rows + counted + (
            SELECT count(*) FROM login_ingest.md5_match
            WHERE field = p_keyset AND new_token ~>=~ low AND new_token ~<~ high);
    END LOOP;
    RETURN found_rows;
END $$;

-- First the key, which waits for all who write under it; then the count, which sees what they
-- wrote.
CREATE FUNCTION login_ingest.retire_key(p_keyset text, p_key bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    needed bigint;
BEGIN
    PERFORM login_ingest.require_recovery();
    PERFORM login_ingest.wait_for_lock('registry');
    PERFORM FROM login_ingest.masking_key
    WHERE keyset = p_keyset AND key_id = p_key FOR UPDATE;
    needed := login_ingest.rows_under(p_keyset, p_key);
    IF needed > 0 THEN
        RETURN needed;
    END IF;
    UPDATE login_ingest.masking_key SET retired_at = now()
    WHERE keyset = p_keyset AND key_id = p_key AND retired_at IS NULL;
    PERFORM login_ingest.record_audit('keys.retire', json_build_object(
        'keyset', p_keyset, 'key_id', p_key)::text);
    RETURN 0;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.retire_key TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.retire_key IS
'Retires a key that nothing is under. 0 if it did; else how many rows need the key.';

CREATE FUNCTION login_ingest.restore_key(p_keyset text, p_key bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM login_ingest.require_recovery();
    PERFORM login_ingest.wait_for_lock('registry');
    UPDATE login_ingest.masking_key SET retired_at = NULL
    WHERE keyset = p_keyset AND key_id = p_key;
    PERFORM login_ingest.record_audit('keys.restore', json_build_object(
        'keyset', p_keyset, 'key_id', p_key)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.restore_key TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.restore_key IS 'Takes the retirement of a key back.';

RESET ROLE;
