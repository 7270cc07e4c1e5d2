-- What becomes of quarantined messages: replayed, discarded, expired.

-- The limit of what callers may ask for; it belongs to the login that migrates.
CREATE TABLE login_ingest.quarantine_policy (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    min_keep_days integer NOT NULL DEFAULT 7 CHECK (min_keep_days > 0)
);
INSERT INTO login_ingest.quarantine_policy DEFAULT VALUES;
GRANT SELECT ON login_ingest.quarantine_policy TO login_ingest_owner;
GRANT SELECT ON login_ingest.quarantine_policy TO login_ingest_recovery;
GRANT SELECT ON login_ingest.quarantine_policy TO login_ingest_auditor;
COMMENT ON TABLE login_ingest.quarantine_policy IS
'One row: how long the quarantine is kept at least. Only whoever migrates may change it.';
COMMENT ON COLUMN login_ingest.quarantine_policy.only_row IS 'True, so that there is one row.';

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.replay (
    replay_id text PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    person text NOT NULL DEFAULT session_user,
    replayed bigint NOT NULL CHECK (replayed >= 0),
    still_rejected bigint NOT NULL CHECK (still_rejected >= 0)
);
GRANT SELECT ON login_ingest.replay TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.replay IS
'One row for each replay: what became a login, what did not.';
COMMENT ON COLUMN login_ingest.replay.person IS 'The session_user who replayed.';

CREATE TABLE login_ingest.discard (
    discard_id text PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    person text NOT NULL DEFAULT session_user,
    action text NOT NULL CHECK (action IN ('discard', 'expire')),
    why text NOT NULL CHECK (why <> ''),
    messages bigint NOT NULL CHECK (messages >= 0)
);
GRANT SELECT ON login_ingest.discard TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.discard IS
'Quarantined messages that were discarded, or that expired.';
COMMENT ON COLUMN login_ingest.discard.person IS 'The session_user who discarded.';
COMMENT ON COLUMN login_ingest.discard.messages IS 'How many messages went.';

CREATE VIEW login_ingest.quarantine_balance AS
SELECT
    quarantined,
    replayed,
    discarded,
    expired,
    erased,
    waiting,
    quarantined = replayed + discarded + expired + erased + waiting AS holds
FROM (
    SELECT
        (SELECT coalesce(sum(quarantined), 0)::bigint FROM login_ingest.batch) AS quarantined,
        (SELECT coalesce(sum(replayed), 0)::bigint FROM login_ingest.replay) AS replayed,
        (
            SELECT coalesce(sum(messages) FILTER (WHERE action = 'discard'), 0)::bigint
            FROM login_ingest.discard
        ) AS discarded,
        (
            SELECT coalesce(sum(messages) FILTER (WHERE action = 'expire'), 0)::bigint
            FROM login_ingest.discard
        ) AS expired,
        (SELECT coalesce(sum(quarantined), 0)::bigint FROM login_ingest.erasure) AS erased,
        (SELECT count(*) FROM login_ingest.quarantine) AS waiting
) AS counts;
GRANT SELECT ON login_ingest.quarantine_balance TO login_ingest_loader;
GRANT SELECT ON login_ingest.quarantine_balance TO login_ingest_recovery;
GRANT SELECT ON login_ingest.quarantine_balance TO login_ingest_auditor;
COMMENT ON VIEW login_ingest.quarantine_balance IS 'What became of all that was ever quarantined.';
COMMENT ON COLUMN login_ingest.quarantine_balance.quarantined IS
'By the batches: all that was ever quarantined.';
COMMENT ON COLUMN login_ingest.quarantine_balance.waiting IS 'What is in the quarantine now.';
COMMENT ON COLUMN login_ingest.quarantine_balance.holds IS
'Whether every message is accounted for once.';

CREATE FUNCTION login_ingest.take_quarantined(
    after text,
    chosen text[],
    only_reason text,
    at_most integer
) RETURNS TABLE (message_id text, sent_at timestamptz, receive_count integer, sealed_body bytea)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT q.message_id, q.sent_at, q.receive_count, q.sealed_body
    FROM login_ingest.quarantine q
    WHERE q.message_id > after
      AND (chosen IS NULL OR q.message_id = ANY (chosen))
      AND (only_reason IS NULL OR q.reason = only_reason)
    ORDER BY q.message_id
    LIMIT at_most
    FOR UPDATE SKIP LOCKED
$$;
GRANT EXECUTE ON FUNCTION login_ingest.take_quarantined TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.take_quarantined IS
'Locks at most so many messages after an id and gives them; passes over what others have locked.';

-- The delete decides: a message that another replay took first is not there, and loads no second
-- time. A row that the table refuses takes its delete back with it.
CREATE FUNCTION login_ingest.replay_messages(
    p_replay text,
    logins jsonb,
    rejections jsonb,
    unopened integer
) RETURNS TABLE (replayed_now bigint, rejected_now bigint)
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
        SELECT name, array_agg(given ->> token_column) AS tokens
        FROM login_ingest.masked_field, jsonb_array_elements(logins) AS given
        WHERE given ->> token_column IS NOT NULL
        GROUP BY name ORDER BY name
    LOOP
        PERFORM login_ingest.require_usable(
            masked.name, login_ingest.token_keys(masked.name, masked.tokens));
    END LOOP;
    SELECT string_agg(quote_ident(column_name), ', ' ORDER BY place) INTO columns
    FROM login_ingest.login_column;
    replayed_now := 0;
    UPDATE login_ingest.quarantine q SET reason = r.reason, field = r.field
    FROM jsonb_to_recordset(rejections) AS r (message_id text, reason text, field text)
    WHERE q.message_id = r.message_id;
    GET DIAGNOSTICS rejected_now = ROW_COUNT;
    rejected_now := rejected_now + unopened;
    FOR login IN SELECT given FROM jsonb_array_elements(logins) AS given LOOP
        BEGIN
            DELETE FROM login_ingest.quarantine WHERE message_id = login ->> 'message_id';
            CONTINUE WHEN NOT FOUND;
            EXECUTE format('INSERT INTO %1$s (%2$s) SELECT %2$s'
                           ' FROM jsonb_populate_record(NULL::%1$s, $1)',
                           login_ingest.user_logins(), columns) USING login;
            GET DIAGNOSTICS written = ROW_COUNT;
            IF written <> 1 THEN
                RAISE EXCEPTION 'user_logins drops rows silently'
                USING ERRCODE = 'triggered_action_exception';
            END IF;
            UPDATE login_ingest.ledger SET app_version = login ->> 'app_version_text'
            WHERE message_id = login ->> 'message_id';
            replayed_now := replayed_now + 1;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
            UPDATE login_ingest.quarantine SET reason = 'refused_by_database', field = NULL
            WHERE message_id = login ->> 'message_id';
            rejected_now := rejected_now + 1;
        END;
    END LOOP;
    INSERT INTO login_ingest.replay AS known (replay_id, replayed, still_rejected)
    VALUES (p_replay, replayed_now, rejected_now)
    ON CONFLICT (replay_id) DO UPDATE
    SET replayed = known.replayed + EXCLUDED.replayed,
        still_rejected = known.still_rejected + EXCLUDED.still_rejected
    WHERE known.person = session_user;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another person''s replay' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM login_ingest.record_audit('quarantine.replay', json_build_object(
        'replay_id', p_replay, 'replayed', replayed_now, 'still_rejected', rejected_now)::text);
    RETURN NEXT;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.replay_messages TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.replay_messages IS
'Loads messages that are logins now, gives the others their new reason: how many of each.';

CREATE FUNCTION login_ingest.discard_messages(
    p_discard text,
    chosen text[],
    only_reason text,
    p_reason text,
    at_most integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone text[];
BEGIN
    IF chosen IS NULL AND only_reason IS NULL THEN
        RAISE EXCEPTION 'nothing was chosen' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH picked AS (
        SELECT message_id FROM login_ingest.quarantine
        WHERE (chosen IS NULL OR message_id = ANY (chosen))
          AND (only_reason IS NULL OR reason = only_reason)
        ORDER BY message_id LIMIT at_most FOR UPDATE
    ), deleted AS (
        DELETE FROM login_ingest.quarantine q USING picked WHERE q.message_id = picked.message_id
        RETURNING q.message_id
    )
    SELECT coalesce(array_agg(message_id ORDER BY message_id), ARRAY[]::text[]) INTO gone
    FROM deleted;
    IF cardinality(gone) = 0 THEN
        RETURN 0;
    END IF;
    INSERT INTO login_ingest.discard AS known (discard_id, action, why, messages)
    VALUES (p_discard, 'discard', p_reason, cardinality(gone))
    ON CONFLICT (discard_id) DO UPDATE SET messages = known.messages + EXCLUDED.messages
    WHERE known.person = session_user;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another person''s discard' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM login_ingest.record_audit('quarantine.discard', json_build_object(
        'discard_id', p_discard, 'why', p_reason, 'messages', cardinality(gone),
        'message_ids', to_json(gone))::text);
    RETURN cardinality(gone);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.discard_messages TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.discard_messages IS
'Deletes at most so many chosen messages: how many.';

CREATE FUNCTION login_ingest.expire_quarantine(
    keep_days integer,
    at_most integer,
    OUT verdict text,
    OUT gone bigint,
    OUT at_least integer
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    gone := 0;
    SELECT min_keep_days INTO STRICT at_least FROM login_ingest.quarantine_policy;
    IF (keep_days >= at_least) IS NOT TRUE THEN
        verdict := 'retention_too_short';
        PERFORM login_ingest.record_audit('quarantine.expire', json_build_object(
            'verdict', verdict, 'keep_days', keep_days, 'at_least', at_least)::text);
        RETURN;
    END IF;
    verdict := 'expired';
    WITH old AS (
        SELECT message_id FROM login_ingest.quarantine
        WHERE quarantined_at < now() - make_interval(days => keep_days)
        ORDER BY quarantined_at, message_id LIMIT at_most FOR UPDATE SKIP LOCKED
    )
    DELETE FROM login_ingest.quarantine q USING old WHERE q.message_id = old.message_id;
    GET DIAGNOSTICS gone = ROW_COUNT;
    IF gone > 0 THEN
        INSERT INTO login_ingest.discard (discard_id, action, why, messages)
        VALUES (gen_random_uuid()::text, 'expire', 'older than ' || keep_days || ' days', gone);
        PERFORM login_ingest.record_audit('quarantine.expire', json_build_object(
            'verdict', verdict, 'keep_days', keep_days, 'messages', gone)::text);
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.expire_quarantine TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.expire_quarantine IS
'Deletes at most so many messages that are older than the given days. The verdict: expired, '
'retention_too_short.';

RESET ROLE;
