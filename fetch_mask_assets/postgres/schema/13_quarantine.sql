-- Replay, discard and expiry of quarantined messages.

-- Callers control their settings, so the limit is in the database. The table belongs to the login
-- that migrates.
CREATE TABLE login_ingest.quarantine_policy (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    min_keep_days integer NOT NULL DEFAULT 7 CHECK (min_keep_days > 0)
);
INSERT INTO login_ingest.quarantine_policy DEFAULT VALUES;
GRANT SELECT ON login_ingest.quarantine_policy TO login_ingest_owner;
GRANT SELECT ON login_ingest.quarantine_policy TO login_ingest_recovery;
GRANT SELECT ON login_ingest.quarantine_policy TO login_ingest_auditor;
COMMENT ON TABLE login_ingest.quarantine_policy IS
'Minimum retention of the quarantine. One row, which only the login that migrates can change.';
COMMENT ON COLUMN login_ingest.quarantine_policy.singleton IS 'Always true: the table has one row.';

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.replay (
    replay_id text PRIMARY KEY,
    replayed_at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL DEFAULT session_user,
    replayed bigint NOT NULL CHECK (replayed >= 0),
    still_rejected bigint NOT NULL CHECK (still_rejected >= 0)
);
GRANT SELECT ON login_ingest.replay TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.replay IS
'Replays, with the number of messages that were loaded and that were rejected again.';
COMMENT ON COLUMN login_ingest.replay.actor IS 'session_user of the replay.';

CREATE TABLE login_ingest.quarantine_deletion (
    deletion_id text PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL DEFAULT session_user,
    action text NOT NULL CHECK (action IN ('discard', 'expire')),
    reason text NOT NULL CHECK (reason <> ''),
    messages bigint NOT NULL CHECK (messages >= 0)
);
GRANT SELECT ON login_ingest.quarantine_deletion TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.quarantine_deletion IS
'Discards and expiries of quarantined messages.';
COMMENT ON COLUMN login_ingest.quarantine_deletion.actor IS 'session_user of the discard.';
COMMENT ON COLUMN login_ingest.quarantine_deletion.messages IS 'Number of deleted messages.';

CREATE VIEW login_ingest.quarantine_balance AS
SELECT
    quarantined,
    replayed,
    discarded,
    expired,
    erased,
    waiting,
    quarantined = replayed + discarded + expired + erased + waiting AS is_balanced
FROM (
    SELECT
        (SELECT coalesce(sum(quarantined), 0)::bigint FROM login_ingest.batch) AS quarantined,
        (SELECT coalesce(sum(replayed), 0)::bigint FROM login_ingest.replay) AS replayed,
        (
            SELECT coalesce(sum(messages) FILTER (WHERE action = 'discard'), 0)::bigint
            FROM login_ingest.quarantine_deletion
        ) AS discarded,
        (
            SELECT coalesce(sum(messages) FILTER (WHERE action = 'expire'), 0)::bigint
            FROM login_ingest.quarantine_deletion
        ) AS expired,
        (SELECT coalesce(sum(messages), 0)::bigint FROM login_ingest.erasure) AS erased,
        (SELECT count(*) FROM login_ingest.quarantine) AS waiting
) AS counts;
GRANT SELECT ON login_ingest.quarantine_balance TO login_ingest_loader;
GRANT SELECT ON login_ingest.quarantine_balance TO login_ingest_recovery;
GRANT SELECT ON login_ingest.quarantine_balance TO login_ingest_auditor;
COMMENT ON VIEW login_ingest.quarantine_balance IS
'Number of messages that were quarantined, by what happened to them.';
COMMENT ON COLUMN login_ingest.quarantine_balance.quarantined IS
'Messages that batches have quarantined.';
COMMENT ON COLUMN login_ingest.quarantine_balance.waiting IS 'Messages in the quarantine.';
COMMENT ON COLUMN login_ingest.quarantine_balance.is_balanced IS
'True if every message is counted exactly once.';

CREATE FUNCTION login_ingest.lock_quarantined(
    p_after text,
    p_message_ids text[],
    p_reason_code text,
    p_limit integer
) RETURNS TABLE (message_id text, sent_at timestamptz, receive_count integer, sealed_body bytea)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT q.message_id, q.sent_at, q.receive_count, q.sealed_body
    FROM login_ingest.quarantine q
    WHERE q.message_id > p_after
      AND (p_message_ids IS NULL OR q.message_id = ANY (p_message_ids))
      AND (p_reason_code IS NULL OR q.reason = p_reason_code)
    ORDER BY q.message_id
    LIMIT p_limit
    FOR UPDATE SKIP LOCKED
$$;
GRANT EXECUTE ON FUNCTION login_ingest.lock_quarantined TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.lock_quarantined IS
'Locks and returns at most p_limit messages with greater ids than p_after. Skips locked messages.';

-- A message that another replay has deleted is skipped, so that it is not loaded twice. If the
-- insert fails, the delete is rolled back.
CREATE FUNCTION login_ingest.replay_messages(
    p_replay text,
    p_logins jsonb,
    p_rejections jsonb,
    p_unreadable integer
) RETURNS TABLE (replayed_count bigint, rejected_count bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    masked record;
    columns text;
    login jsonb;
    written bigint;
BEGIN
    FOR masked IN
        SELECT name, array_agg(input ->> token_column) AS tokens
        FROM login_ingest.masked_field, jsonb_array_elements(p_logins) AS input
        WHERE input ->> token_column IS NOT NULL
        GROUP BY name ORDER BY name
    LOOP
        PERFORM login_ingest.require_usable_keys(
            masked.name, login_ingest.token_key_ids(masked.name, masked.tokens));
    END LOOP;
    SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) INTO columns
    FROM login_ingest.login_column;
    replayed_count := 0;
    UPDATE login_ingest.quarantine q SET reason = r.reason, field = r.field
    FROM jsonb_to_recordset(p_rejections) AS r (message_id text, reason text, field text)
    WHERE q.message_id = r.message_id;
    GET DIAGNOSTICS rejected_count = ROW_COUNT;
    rejected_count := rejected_count + p_unreadable;
    FOR login IN SELECT input FROM jsonb_array_elements(p_logins) AS input LOOP
        BEGIN
            DELETE FROM login_ingest.quarantine WHERE message_id = login ->> 'message_id';
            CONTINUE WHEN NOT FOUND;
            EXECUTE format('INSERT INTO %1$s (%2$s) SELECT %2$s'
                           ' FROM jsonb_populate_record(NULL::%1$s, $1)',
                           login_ingest.logins_table(), columns) USING login;
            GET DIAGNOSTICS written = ROW_COUNT;
            IF written <> 1 THEN
                RAISE EXCEPTION 'a trigger or rule of user_logins discarded the row'
                USING ERRCODE = 'triggered_action_exception';
            END IF;
            UPDATE login_ingest.ledger SET app_version = login ->> 'app_version_text'
            WHERE message_id = login ->> 'message_id';
            replayed_count := replayed_count + 1;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
            UPDATE login_ingest.quarantine SET reason = 'refused_by_database', field = NULL
            WHERE message_id = login ->> 'message_id';
            rejected_count := rejected_count + 1;
        END;
    END LOOP;
    INSERT INTO login_ingest.replay AS existing (replay_id, replayed, still_rejected)
    VALUES (p_replay, replayed_count, rejected_count)
    ON CONFLICT (replay_id) DO UPDATE
    SET replayed = existing.replayed + EXCLUDED.replayed,
        still_rejected = existing.still_rejected + EXCLUDED.still_rejected
    WHERE existing.actor = session_user;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the replay belongs to another actor'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM login_ingest.record_audit('quarantine.replay', json_build_object(
        'replay_id', p_replay, 'replayed', replayed_count, 'still_rejected', rejected_count)::text);
    RETURN NEXT;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.replay_messages TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.replay_messages IS
'Loads quarantined messages that are valid now, and updates the reasons of the others. Returns the '
'number of each.';

CREATE FUNCTION login_ingest.discard_messages(
    p_discard text,
    p_message_ids text[],
    p_reason_code text,
    p_reason text,
    p_limit integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted_ids text[];
BEGIN
    IF p_message_ids IS NULL AND p_reason_code IS NULL THEN
        RAISE EXCEPTION 'message ids or a reason must be given'
        USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH selected AS (
        SELECT message_id FROM login_ingest.quarantine
        WHERE (p_message_ids IS NULL OR message_id = ANY (p_message_ids))
          AND (p_reason_code IS NULL OR reason = p_reason_code)
        ORDER BY message_id LIMIT p_limit FOR UPDATE
    ), deleted AS (
        DELETE FROM login_ingest.quarantine q USING selected
        WHERE q.message_id = selected.message_id
        RETURNING q.message_id
    )
    SELECT coalesce(array_agg(message_id ORDER BY message_id), ARRAY[]::text[]) INTO deleted_ids
    FROM deleted;
    IF cardinality(deleted_ids) = 0 THEN
        RETURN 0;
    END IF;
    INSERT INTO login_ingest.quarantine_deletion AS existing (deletion_id, action, reason, messages)
    VALUES (p_discard, 'discard', p_reason, cardinality(deleted_ids))
    ON CONFLICT (deletion_id) DO UPDATE SET messages = existing.messages + EXCLUDED.messages
    WHERE existing.actor = session_user;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the discard belongs to another actor'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM login_ingest.record_audit('quarantine.discard', json_build_object(
        'deletion_id', p_discard, 'reason', p_reason, 'messages', cardinality(deleted_ids),
        'message_ids', to_json(deleted_ids))::text);
    RETURN cardinality(deleted_ids);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.discard_messages TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.discard_messages IS
'Deletes at most p_limit messages by id or by reason. Returns their number.';

CREATE FUNCTION login_ingest.expire_quarantine(
    p_keep_days integer,
    p_limit integer,
    OUT verdict text,
    OUT deleted bigint,
    OUT min_days integer
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    deleted := 0;
    SELECT min_keep_days INTO STRICT min_days FROM login_ingest.quarantine_policy;
    IF (p_keep_days >= min_days) IS NOT TRUE THEN
        verdict := 'retention_too_short';
        PERFORM login_ingest.record_audit('quarantine.expire', json_build_object(
            'verdict', verdict, 'keep_days', p_keep_days, 'min_days', min_days)::text);
        RETURN;
    END IF;
    verdict := 'expired';
    WITH old AS (
        SELECT message_id FROM login_ingest.quarantine
        WHERE quarantined_at < now() - make_interval(days => p_keep_days)
        ORDER BY quarantined_at, message_id LIMIT p_limit FOR UPDATE SKIP LOCKED
    )
    DELETE FROM login_ingest.quarantine q USING old WHERE q.message_id = old.message_id;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF deleted > 0 THEN
        INSERT INTO login_ingest.quarantine_deletion (deletion_id, action, reason, messages)
        VALUES (gen_random_uuid()::text, 'expire', 'older than ' || p_keep_days || ' days',
                deleted);
        PERFORM login_ingest.record_audit('quarantine.expire', json_build_object(
            'verdict', verdict, 'keep_days', p_keep_days, 'messages', deleted)::text);
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.expire_quarantine TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.expire_quarantine IS
'Deletes at most p_limit messages that are older than p_keep_days. Returns a verdict: expired, '
'retention_too_short.';

RESET ROLE;
