-- Rotation: old tokens are replaced by new tokens, and keys that no row needs are retired.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.remask_job (
    job_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action text NOT NULL CHECK (action IN ('remask', 'upgrade-md5')),
    field text NOT NULL REFERENCES login_ingest.masked_field,
    actor text NOT NULL DEFAULT session_user,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    resumed_by bigint REFERENCES login_ingest.remask_job,
    from_key_ids bigint[] NOT NULL DEFAULT '{}',
    to_key_ids bigint[] NOT NULL DEFAULT '{}',
    links bigint NOT NULL DEFAULT 0,
    rows_changed bigint NOT NULL DEFAULT 0
);
GRANT SELECT ON login_ingest.remask_job TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.remask_job IS
'Jobs that replace tokens: actor, old and new keys, number of rows. Written by functions only.';
COMMENT ON COLUMN login_ingest.remask_job.actor IS 'session_user who began the job.';
COMMENT ON COLUMN login_ingest.remask_job.finished_at IS
'Null while the job runs, and if it was killed.';
COMMENT ON COLUMN login_ingest.remask_job.resumed_by IS 'The later job that continues this job.';
COMMENT ON COLUMN login_ingest.remask_job.from_key_ids IS 'Key ids of the old tokens.';
COMMENT ON COLUMN login_ingest.remask_job.to_key_ids IS 'Key ids of the new tokens.';
COMMENT ON COLUMN login_ingest.remask_job.links IS 'Number of links that were written.';
COMMENT ON COLUMN login_ingest.remask_job.rows_changed IS
'Number of rows of user_logins that were changed.';

CREATE FUNCTION login_ingest.require_batch_size(p_old_tokens text[], p_new_tokens text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (cardinality(p_old_tokens) = cardinality(p_new_tokens)
        AND cardinality(p_new_tokens) <= 20000) IS NOT TRUE THEN
        RAISE EXCEPTION 'the arrays differ in length or have more than 20000 tokens'
        USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

CREATE FUNCTION login_ingest.require_job_keys(
    p_job login_ingest.remask_job,
    p_key_ids bigint[]
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM login_ingest.require_usable_keys(p_job.field, p_key_ids);
    IF NOT p_key_ids <@ p_job.to_key_ids THEN
        RAISE EXCEPTION 'a new token is not under a key of the job'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'job_key';
    END IF;
END $$;

-- A killed job has changed rows and has no record of its end. The next job records its counts.
CREATE FUNCTION login_ingest.begin_remask_job(
    p_action text,
    p_field text,
    p_key_ids bigint[],
    OUT job bigint,
    OUT unfinished bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unfinished_jobs json;
BEGIN
    PERFORM login_ingest.require_recovery_member();
    PERFORM login_ingest.require_usable_keys(p_field, p_key_ids);
    INSERT INTO login_ingest.remask_job (action, field, to_key_ids)
    VALUES (p_action, p_field, p_key_ids) RETURNING job_id INTO job;
    WITH killed AS (
        UPDATE login_ingest.remask_job SET resumed_by = job
        WHERE action = p_action AND field = p_field AND finished_at IS NULL
          AND resumed_by IS NULL AND job_id <> begin_remask_job.job
        RETURNING job_id AS job, actor, from_key_ids, to_key_ids, links, rows_changed
    )
    SELECT coalesce(json_agg(killed ORDER BY killed.job), '[]'), count(*)
    INTO unfinished_jobs, unfinished FROM killed;
    PERFORM login_ingest.record_audit(p_action || '.begin', json_build_object(
        'job', job, 'field', p_field, 'to_key_ids', p_key_ids,
        'resumes', unfinished_jobs)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.begin_remask_job TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.begin_remask_job IS
'Begins a job that writes tokens under the given keys. Returns its id, and the number of '
'unfinished jobs of the same action and field, which it continues.';

CREATE FUNCTION login_ingest.lock_remask_job(
    p_job bigint,
    p_action text
) RETURNS login_ingest.remask_job
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job login_ingest.remask_job;
BEGIN
    PERFORM login_ingest.require_recovery_member();
    SELECT * INTO job FROM login_ingest.remask_job
    WHERE job_id = p_job AND action = p_action AND actor = session_user
      AND finished_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'session_user has no unfinished job with this id'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN job;
END $$;

CREATE FUNCTION login_ingest.add_job_counts(
    p_job bigint,
    p_from_keys bigint[],
    p_to_keys bigint[],
    p_links bigint,
    p_rows bigint
) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE login_ingest.remask_job
    SET links = links + p_links, rows_changed = rows_changed + p_rows,
        from_key_ids = ARRAY(SELECT DISTINCT unnest(from_key_ids || p_from_keys) ORDER BY 1),
        to_key_ids = ARRAY(SELECT DISTINCT unnest(to_key_ids || p_to_keys) ORDER BY 1)
    WHERE job_id = p_job
$$;

CREATE FUNCTION login_ingest.finish_remask_job(p_job bigint, p_action text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job login_ingest.remask_job;
BEGIN
    -- A caller that lost the connection repeats the call.
    IF EXISTS (SELECT FROM login_ingest.remask_job WHERE job_id = p_job
               AND actor = session_user AND finished_at IS NOT NULL) THEN
        RETURN;
    END IF;
    job := login_ingest.lock_remask_job(p_job, p_action);
    UPDATE login_ingest.remask_job SET finished_at = clock_timestamp()
    WHERE job_id = p_job;
    PERFORM login_ingest.record_audit(p_action || '.finish', json_build_object(
        'job', p_job, 'field', job.field, 'from_key_ids', job.from_key_ids,
        'to_key_ids', job.to_key_ids, 'links', job.links, 'rows_changed', job.rows_changed)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.finish_remask_job TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.finish_remask_job IS 'Finishes a job and records its counts.';

CREATE FUNCTION login_ingest.link_tokens_in_job(
    p_job bigint,
    p_old_tokens text[],
    p_new_tokens text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job login_ingest.remask_job := login_ingest.lock_remask_job(p_job, 'remask');
BEGIN
    PERFORM login_ingest.require_batch_size(p_old_tokens, p_new_tokens);
    PERFORM login_ingest.require_registered_keys(
        job.field, login_ingest.token_key_ids(job.field, p_old_tokens));
    PERFORM login_ingest.require_job_keys(job, login_ingest.token_key_ids(job.field, p_new_tokens));
    PERFORM login_ingest.wait_for_lock('links');
    PERFORM login_ingest.upsert_links(job.field, p_old_tokens, p_new_tokens);
    PERFORM login_ingest.add_job_counts(p_job, '{}', '{}', cardinality(p_old_tokens), 0);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.link_tokens_in_job TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.link_tokens_in_job IS
'Links old tokens to new tokens in a re-masking. Two arrays of equal length.';

-- A token is replaced only if both tokens have the same newest token, so that user_logins_linked
-- does not change. Changes of rows of user_logins take the lock logins: two transactions that read
-- the columns of two fields would lock the same rows in two orders.
CREATE FUNCTION login_ingest.replace_tokens(
    p_job bigint,
    p_old_tokens text[],
    p_new_tokens text[],
    p_limit integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job login_ingest.remask_job := login_ingest.lock_remask_job(p_job, 'remask');
    old_keys bigint[] := login_ingest.token_key_ids(job.field, p_old_tokens);
    replaced bigint;
BEGIN
    PERFORM login_ingest.require_batch_size(p_old_tokens, p_new_tokens);
    PERFORM login_ingest.require_job_keys(job, login_ingest.token_key_ids(job.field, p_new_tokens));
    PERFORM login_ingest.wait_for_lock('logins');
    EXECUTE format($sql$
        WITH replacement AS (
            SELECT input.old_token, input.new_token
            FROM unnest($1, $2) AS input (old_token, new_token)
            WHERE coalesce((
                SELECT link.new_token FROM login_ingest.token_link AS link
                WHERE link.field = $3 AND link.old_token = input.old_token
            ), input.old_token) = coalesce((
                SELECT link.new_token FROM login_ingest.token_link AS link
                WHERE link.field = $3 AND link.old_token = input.new_token
            ), input.new_token)
              AND input.old_token <> input.new_token
        ), selected AS (
            SELECT login.tableoid AS row_table, login.ctid AS row_ctid, old_token, new_token
            FROM replacement JOIN %2$s AS login ON login.%1$I = old_token
            LIMIT $4
        )
        UPDATE %2$s AS login SET %1$I = selected.new_token FROM selected
        WHERE login.ctid = selected.row_ctid AND login.tableoid = selected.row_table
          AND login.%1$I = selected.old_token
    $sql$, login_ingest.token_column(job.field), login_ingest.logins_table())
    USING p_old_tokens, p_new_tokens, job.field, least(p_limit, 5000);
    GET DIAGNOSTICS replaced = ROW_COUNT;
    IF replaced > 0 THEN
        PERFORM login_ingest.add_job_counts(p_job, old_keys, '{}', 0, replaced);
    END IF;
    RETURN replaced;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.replace_tokens TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.replace_tokens IS
'Replaces linked tokens in at most p_limit rows of user_logins. Returns the number of rows.';

-- ~>=~ and ~<~ compare bytes, as the indexes on the tokens do.
CREATE FUNCTION login_ingest.count_logins_under_key(p_field text, p_from text, p_until text)
RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    counted bigint;
BEGIN
    EXECUTE format(
        'SELECT count(*) FROM %2$s WHERE %1$I ~>=~ $1 AND %1$I ~<~ $2',
        login_ingest.token_column(p_field), login_ingest.logins_table()
    ) INTO counted USING p_from, p_until;
    RETURN counted;
END $$;
COMMENT ON FUNCTION login_ingest.count_logins_under_key IS
'Returns the number of rows of user_logins with a token of a field in a range.';

-- An operation with tokens in a table of its own counts them in a function count_..._under_key of
-- its own file. Each of the four ranges has one value of the two bits after the key id.
CREATE FUNCTION login_ingest.rows_under_key(p_keyset text, p_key_id bigint) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    prefix bytea := decode('01' || lpad(to_hex(p_key_id), 8, '0'), 'hex');
    bits integer;
    first_token text;
    next_token text;
    counter regproc;
    counted bigint;
    total bigint := 0;
BEGIN
    IF p_keyset = 'quarantine' THEN
        RETURN (SELECT count(*) FROM login_ingest.quarantine
                WHERE substr(sealed_body, 1, 5) = prefix AND length(sealed_body) > 5);
    END IF;
    FOREACH bits IN ARRAY ARRAY[0, 64, 128, 192] LOOP
        first_token := p_keyset || ':' || left(translate(encode(
            prefix || set_byte('\x00'::bytea, 0, bits), 'base64'), '+/', '-_'), 7);
        next_token := left(first_token, -1) || chr(ascii(right(first_token, 1)) + 1);
        FOR counter IN
            SELECT oid FROM pg_proc
            WHERE pronamespace = 'login_ingest'::regnamespace AND proname ~ '^count_.+_under_key$'
        LOOP
            EXECUTE format('SELECT %s($1, $2, $3)', counter)
            INTO counted USING p_keyset, first_token, next_token;
            total := total + counted;
        END LOOP;
    END LOOP;
    RETURN total;
END $$;
COMMENT ON FUNCTION login_ingest.rows_under_key IS
'Returns the number of rows with a token, or a sealed message, under a key.';

-- The lock of the key waits for its writers, so that the count includes their rows.
CREATE FUNCTION login_ingest.retire_key(p_keyset text, p_key_id bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    remaining_rows bigint;
BEGIN
    PERFORM login_ingest.require_recovery_member();
    PERFORM login_ingest.wait_for_lock('registry');
    PERFORM FROM login_ingest.masking_key
    WHERE keyset = p_keyset AND key_id = p_key_id FOR UPDATE;
    remaining_rows := login_ingest.rows_under_key(p_keyset, p_key_id);
    IF remaining_rows > 0 THEN
        RETURN remaining_rows;
    END IF;
    UPDATE login_ingest.masking_key SET retired_at = now()
    WHERE keyset = p_keyset AND key_id = p_key_id AND retired_at IS NULL;
    PERFORM login_ingest.record_audit('keys.retire', json_build_object(
        'keyset', p_keyset, 'key_id', p_key_id)::text);
    RETURN 0;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.retire_key TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.retire_key IS
'Retires a key. Returns the number of rows that need the key: unless it is 0, the key was not '
'retired.';

CREATE FUNCTION login_ingest.restore_key(p_keyset text, p_key_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM login_ingest.require_recovery_member();
    PERFORM login_ingest.wait_for_lock('registry');
    UPDATE login_ingest.masking_key SET retired_at = NULL
    WHERE keyset = p_keyset AND key_id = p_key_id;
    PERFORM login_ingest.record_audit('keys.restore', json_build_object(
        'keyset', p_keyset, 'key_id', p_key_id)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.restore_key TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.restore_key IS 'Makes a retired key usable again.';

RESET ROLE;
