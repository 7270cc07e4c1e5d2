-- Unmasking and find: decided and recorded by the database. A refusal is a verdict and not an
-- error, so that its record is committed.

-- Callers control their settings, so the limits are in the database. The table belongs to the login
-- that migrates.
CREATE TABLE login_ingest.unmask_policy (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    max_tokens integer NOT NULL DEFAULT 100 CHECK (max_tokens > 0),
    max_minutes integer NOT NULL DEFAULT 480 CHECK (max_minutes > 0),
    max_find_tokens integer NOT NULL DEFAULT 300 CHECK (max_find_tokens > 0),
    max_find_tokens_per_day integer NOT NULL DEFAULT 3000 CHECK (max_find_tokens_per_day > 0)
);
INSERT INTO login_ingest.unmask_policy DEFAULT VALUES;
GRANT SELECT ON login_ingest.unmask_policy TO login_ingest_owner;
GRANT SELECT ON login_ingest.unmask_policy TO login_ingest_recovery;
GRANT SELECT ON login_ingest.unmask_policy TO login_ingest_auditor;
COMMENT ON TABLE login_ingest.unmask_policy IS
'Limits of unmasking and find. One row, which only the login that migrates can change.';
COMMENT ON COLUMN login_ingest.unmask_policy.singleton IS 'Always true: the table has one row.';
COMMENT ON COLUMN login_ingest.unmask_policy.max_tokens IS 'Maximum number of tokens of a request.';
COMMENT ON COLUMN login_ingest.unmask_policy.max_minutes IS
'Maximum duration of an approval in minutes.';
COMMENT ON COLUMN login_ingest.unmask_policy.max_find_tokens IS
'Maximum number of tokens of one find. A value has one token under each enabled key.';
COMMENT ON COLUMN login_ingest.unmask_policy.max_find_tokens_per_day IS
'Maximum number of tokens that one actor can search for on one UTC day.';

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.unmask_request (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    requester text NOT NULL,
    reason text NOT NULL,
    ticket text NOT NULL,
    tokens text[] NOT NULL,
    approver text,
    approved_at timestamptz,
    expires_at timestamptz,
    withdrawn_by text,
    withdrawn_at timestamptz,
    CONSTRAINT approver_not_requester CHECK (approver <> requester),
    CONSTRAINT approval_complete CHECK (num_nulls(approver, approved_at, expires_at) IN (0, 3)),
    CONSTRAINT withdrawal_complete CHECK (num_nulls(withdrawn_by, withdrawn_at) IN (0, 2))
);
GRANT SELECT ON login_ingest.unmask_request TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.unmask_request IS
'Requests for the originals of tokens, with their approval. Written by functions only.';
COMMENT ON COLUMN login_ingest.unmask_request.requester IS 'session_user who made the request.';
COMMENT ON COLUMN login_ingest.unmask_request.ticket IS
'Reference to a ticket, given by the requester.';
COMMENT ON COLUMN login_ingest.unmask_request.tokens IS
'Requested tokens without erased tokens. The audit has the SHA-256 digests of all.';
COMMENT ON COLUMN login_ingest.unmask_request.approver IS 'session_user of the last approval.';
COMMENT ON COLUMN login_ingest.unmask_request.expires_at IS
'End of the approval.';
COMMENT ON COLUMN login_ingest.unmask_request.withdrawn_by IS
'session_user who withdrew the request. A withdrawn request cannot be approved or revealed.';
COMMENT ON CONSTRAINT approver_not_requester ON login_ingest.unmask_request IS
'A requester cannot approve the request.';

CREATE TABLE login_ingest.find_usage (
    actor text NOT NULL,
    used_on date NOT NULL,
    tokens bigint NOT NULL CHECK (tokens > 0),
    PRIMARY KEY (actor, used_on)
);
GRANT SELECT ON login_ingest.find_usage TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.find_usage IS
'Number of tokens that each actor has searched for on each day.';
COMMENT ON COLUMN login_ingest.find_usage.used_on IS 'UTC day.';

-- One line with at least one visible character.
CREATE FUNCTION login_ingest.is_valid_text(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = login_ingest, pg_temp
RETURN coalesce(p_text ~ '\S' AND p_text !~ '[[:cntrl:]]' AND length(p_text) <= 500, false);

-- The audit is never changed, so it contains digests: they identify a token, and do not restore an
-- original after its erasure.
CREATE FUNCTION login_ingest.token_digests(p_tokens text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = login_ingest, pg_temp
RETURN (
    SELECT jsonb_agg(encode(sha256(convert_to(input.token, 'UTF8')), 'hex') ORDER BY input.ord)
    FROM unnest(p_tokens) WITH ORDINALITY AS input (token, ord)
);

-- A text that is not a token is counted and not stored, because it may be a raw value.
CREATE FUNCTION login_ingest.create_unmask_request(
    p_tokens text[],
    p_reason text,
    p_ticket text,
    p_limit integer,
    OUT verdict text,
    OUT request bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = login_ingest, pg_temp
AS $$
DECLARE
    token_count integer := coalesce(cardinality(p_tokens), 0);
    max_token_count integer;
BEGIN
    SELECT least(max_tokens, p_limit) INTO STRICT max_token_count FROM unmask_policy;
    verdict := CASE
        WHEN token_count > max_token_count THEN 'limit_exceeded'
        WHEN token_count = 0 OR EXISTS (
            SELECT FROM unnest(p_tokens) AS token
            WHERE login_ingest.token_field(token) IS NULL
        ) THEN 'invalid_tokens'
        WHEN NOT (is_valid_text(p_reason) AND is_valid_text(p_ticket)) THEN 'reason_required'
        ELSE 'requested'
    END;
    IF verdict <> 'requested' THEN
        PERFORM record_audit('unmask.request',
            jsonb_build_object('verdict', verdict, 'count', token_count)::text);
        RETURN;
    END IF;
    INSERT INTO unmask_request (requester, reason, ticket, tokens)
    VALUES (session_user, p_reason, p_ticket, p_tokens) RETURNING request_id INTO request;
    PERFORM record_audit('unmask.request', jsonb_build_object(
        'verdict', verdict, 'request', request, 'reason', p_reason, 'ticket', p_ticket,
        'count', token_count, 'sha256', token_digests(p_tokens))::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.create_unmask_request TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.create_unmask_request IS
'Requests the originals of tokens. Returns a verdict: requested, limit_exceeded, invalid_tokens, '
'reason_required.';

CREATE FUNCTION login_ingest.approve_unmask_request(
    p_request bigint,
    p_minutes integer,
    OUT verdict text,
    OUT approved_until timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = login_ingest, pg_temp
AS $$
DECLARE
    request unmask_request;
    max_duration integer;
BEGIN
    SELECT max_minutes INTO STRICT max_duration FROM unmask_policy;
    SELECT * INTO request FROM unmask_request WHERE request_id = p_request FOR UPDATE;
    verdict := CASE
        WHEN request.request_id IS NULL THEN 'unknown_request'
        WHEN request.requester = session_user THEN 'own_request'
        WHEN NOT (is_recovery_member(session_user) AND is_recovery_member(request.requester))
            THEN 'second_person_required'
        WHEN request.withdrawn_at IS NOT NULL THEN 'request_withdrawn'
        WHEN request.expires_at > clock_timestamp() THEN 'already_approved'
        WHEN (p_minutes BETWEEN 1 AND max_duration) IS NOT TRUE THEN 'too_long'
        ELSE 'approved'
    END;
    IF verdict = 'approved' THEN
        approved_until := clock_timestamp() + make_interval(mins => p_minutes);
        UPDATE unmask_request
        SET approver = session_user, approved_at = clock_timestamp(), expires_at = approved_until
        WHERE request_id = p_request;
    END IF;
    PERFORM record_audit('unmask.approve', jsonb_build_object(
        'verdict', verdict, 'request', p_request, 'requester', request.requester,
        'minutes', p_minutes, 'count', cardinality(request.tokens))::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.approve_unmask_request TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.approve_unmask_request IS
'Approves a request of another actor for p_minutes. Returns a verdict: approved, unknown_request, '
'own_request, second_person_required, request_withdrawn, already_approved, too_long.';

CREATE FUNCTION login_ingest.reveal_unmask_request(
    p_request bigint,
    OUT verdict text,
    OUT tokens text[]
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = login_ingest, pg_temp
AS $$
DECLARE
    request unmask_request;
    max_token_count integer;
BEGIN
    SELECT max_tokens INTO STRICT max_token_count FROM unmask_policy;
    SELECT * INTO request FROM unmask_request WHERE request_id = p_request FOR UPDATE;
    verdict := CASE
        WHEN request.request_id IS NULL THEN 'unknown_request'
        WHEN request.requester <> session_user THEN 'not_the_requester'
        WHEN request.withdrawn_at IS NOT NULL THEN 'request_withdrawn'
        WHEN request.approver IS NULL THEN 'not_approved'
        WHEN NOT (request.approver <> request.requester
            AND is_recovery_member(request.approver) AND is_recovery_member(request.requester))
            THEN 'second_person_required'
        WHEN (request.expires_at > clock_timestamp()) IS NOT TRUE THEN 'expired'
        WHEN (cardinality(request.tokens) <= max_token_count) IS NOT TRUE THEN 'limit_exceeded'
        WHEN cardinality(request.tokens) = 0 THEN 'erased'
        ELSE 'revealed'
    END;
    IF verdict = 'revealed' THEN
        tokens := request.tokens;
    END IF;
    PERFORM record_audit('unmask.reveal', jsonb_build_object(
        'verdict', verdict, 'request', p_request, 'approver', request.approver,
        'count', cardinality(request.tokens), 'sha256', token_digests(tokens))::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.reveal_unmask_request TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.reveal_unmask_request IS
'Returns the tokens of an approved request to its requester, and a verdict: revealed, '
'unknown_request, not_the_requester, request_withdrawn, not_approved, second_person_required, '
'expired, limit_exceeded, erased.';

CREATE FUNCTION login_ingest.withdraw_unmask_request(
    p_request bigint,
    OUT verdict text,
    OUT withdrawn_by text,
    OUT withdrawn_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    request login_ingest.unmask_request;
BEGIN
    SELECT * INTO request FROM login_ingest.unmask_request WHERE request_id = p_request FOR UPDATE;
    verdict := CASE
        WHEN request.request_id IS NULL THEN 'unknown_request'
        WHEN request.withdrawn_at IS NOT NULL THEN 'already_withdrawn'
        ELSE 'withdrawn'
    END;
    withdrawn_by := request.withdrawn_by;
    withdrawn_at := request.withdrawn_at;
    IF verdict = 'withdrawn' THEN
        withdrawn_by := session_user;
        withdrawn_at := clock_timestamp();
        UPDATE login_ingest.unmask_request AS withdrawn
        SET withdrawn_by = withdraw_unmask_request.withdrawn_by, withdrawn_at = withdraw_unmask_request.withdrawn_at
        WHERE withdrawn.request_id = p_request;
    END IF;
    PERFORM login_ingest.record_audit('unmask.withdraw', jsonb_build_object(
        'verdict', verdict, 'request', p_request, 'requester', request.requester,
        'approver', request.approver)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.withdraw_unmask_request TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.withdraw_unmask_request IS
'Withdraws a request. Returns a verdict: withdrawn, unknown_request, already_withdrawn.';

-- A concurrent call waits for the row of the actor and the day.
CREATE FUNCTION login_ingest.consume_find_quota(p_count integer) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    max_per_day bigint;
BEGIN
    SELECT max_find_tokens_per_day INTO STRICT max_per_day FROM login_ingest.unmask_policy;
    IF p_count > max_per_day THEN
        RETURN false;
    END IF;
    INSERT INTO login_ingest.find_usage AS existing (actor, used_on, tokens)
    VALUES (session_user, (clock_timestamp() AT TIME ZONE 'UTC')::date, p_count)
    ON CONFLICT (actor, used_on) DO UPDATE SET tokens = existing.tokens + excluded.tokens
    WHERE existing.tokens + excluded.tokens <= max_per_day;
    RETURN FOUND;
END $$;

CREATE FUNCTION login_ingest.clear_column_list() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (
    SELECT string_agg(quote_ident(listed.column_name), ', ' ORDER BY listed.ordinal_position)
    FROM login_ingest.login_column AS listed
    LEFT JOIN login_ingest.masked_field AS field ON listed.column_name = field.token_column
    WHERE field.name IS NULL
);
COMMENT ON FUNCTION login_ingest.clear_column_list IS
'Returns the clear columns of user_logins as a list in SQL.';

-- Only digests of tokens are recorded. One statement counts rows and returns the newest, so that
-- both agree.
CREATE FUNCTION login_ingest.find_rows(
    p_field text,
    p_tokens text[],
    p_limit integer,
    OUT verdict text,
    OUT counts jsonb,
    OUT newest jsonb
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    token_count integer := coalesce(cardinality(p_tokens), 0);
    digests jsonb;
BEGIN
    verdict := CASE
        WHEN token_count > (SELECT max_find_tokens FROM login_ingest.unmask_policy)
            THEN 'find_limit_exceeded'
        WHEN token_count = 0 OR EXISTS (
            SELECT FROM unnest(p_tokens) AS token
            WHERE (login_ingest.token_field(token) = p_field) IS NOT TRUE
        ) THEN 'invalid_tokens'
        WHEN NOT login_ingest.consume_find_quota(token_count) THEN 'daily_limit_exceeded'
        ELSE 'found'
    END;
    IF verdict <> 'found' THEN
        PERFORM login_ingest.record_audit('find.search',
            jsonb_build_object('verdict', verdict, 'count', token_count)::text);
        RETURN;
    END IF;
    EXECUTE format('
        SELECT (SELECT coalesce(jsonb_object_agg(token, rows), ''{}'') FROM (
                    SELECT %1$I AS token, count(*) AS rows FROM %2$s
                    WHERE %1$I = ANY ($1) GROUP BY 1) AS counted),
               (SELECT coalesce(jsonb_agg(to_jsonb(newest)), ''[]'') FROM (
                    SELECT %1$I AS token, %3$s FROM %2$s WHERE %1$I = ANY ($1)
                    ORDER BY create_date DESC NULLS LAST, user_id LIMIT $2) AS newest)',
        login_ingest.token_column(p_field), login_ingest.logins_table(),
        login_ingest.clear_column_list())
    INTO counts, newest USING p_tokens, greatest(coalesce(p_limit, 0), 0);
    SELECT jsonb_object_agg(encode(sha256(convert_to(token, 'UTF8')), 'hex'),
                            coalesce((counts -> token)::bigint, 0))
    INTO digests FROM unnest(p_tokens) AS token;
    PERFORM login_ingest.record_audit('find.search', jsonb_build_object(
        'verdict', verdict, 'field', p_field, 'count', token_count,
        'rows_by_sha256', digests)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.find_rows TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.find_rows IS
'Returns the number of rows of each token, the newest rows without their tokens, and a verdict: '
'found, find_limit_exceeded, invalid_tokens, daily_limit_exceeded.';

-- For the erasure: a request keeps its requester, reason, approval and other tokens.
CREATE FUNCTION login_ingest.erase_requests(p_erasure text, p_tokens text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed bigint;
BEGIN
    UPDATE login_ingest.unmask_request
    SET tokens = ARRAY(SELECT token FROM unnest(tokens) AS token WHERE token <> ALL (p_tokens))
    WHERE tokens && p_tokens;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM login_ingest.record_erased(p_erasure, 'unmask_requests', changed);
    RETURN changed;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_requests TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_requests IS
'Removes tokens from requests. Returns the number of changed requests.';

CREATE FUNCTION login_ingest.count_remaining_requests(p_field text, p_tokens text[]) RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) FROM login_ingest.unmask_request WHERE tokens && p_tokens
$$;
COMMENT ON FUNCTION login_ingest.count_remaining_requests IS
'Returns the number of requests with one of the tokens.';

RESET ROLE;
