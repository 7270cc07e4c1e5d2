-- Unmasking and finding: each decided and recorded by the database. A refusal is a verdict and no
-- error, so that it is committed with its record.

-- A limit in the environment of a caller would be no limit: these are the database's, and belong to
-- the login that migrates.
CREATE TABLE login_ingest.unmask_policy (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
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
'One row: the limits of unmasking. Only whoever migrates may change them.';
COMMENT ON COLUMN login_ingest.unmask_policy.only_row IS 'True, so that there is one row.';
COMMENT ON COLUMN login_ingest.unmask_policy.max_tokens IS 'Tokens in one request.';
COMMENT ON COLUMN login_ingest.unmask_policy.max_minutes IS
'Minutes for which an approval lasts.';
COMMENT ON COLUMN login_ingest.unmask_policy.max_find_tokens IS
'Tokens in one find; a value has one under each enabled key.';
COMMENT ON COLUMN login_ingest.unmask_policy.max_find_tokens_per_day IS
'Tokens that one person may look for on one day, UTC.';

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
    CONSTRAINT second_person CHECK (approver <> requester),
    CONSTRAINT whole_approval CHECK (num_nulls(approver, approved_at, expires_at) IN (0, 3)),
    CONSTRAINT whole_withdrawal CHECK (num_nulls(withdrawn_by, withdrawn_at) IN (0, 2))
);
GRANT SELECT ON login_ingest.unmask_request TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.unmask_request IS
'Who asked for the originals of which tokens, and who approved it until when. Written by '
'functions only.';
COMMENT ON COLUMN login_ingest.unmask_request.requester IS 'The session_user who asked.';
COMMENT ON COLUMN login_ingest.unmask_request.ticket IS
'Where the request is discussed, in the words of the requester.';
COMMENT ON COLUMN login_ingest.unmask_request.tokens IS
'What was asked for, without what was erased since. The audit has their SHA-256 digests.';
COMMENT ON COLUMN login_ingest.unmask_request.approver IS 'The session_user who approved last.';
COMMENT ON COLUMN login_ingest.unmask_request.expires_at IS
'Until when the requester may have the originals.';
COMMENT ON COLUMN login_ingest.unmask_request.withdrawn_by IS
'The session_user who withdrew it: it is closed for good.';
COMMENT ON CONSTRAINT second_person ON login_ingest.unmask_request IS
'Nobody approves their own request.';

CREATE TABLE login_ingest.find_usage (
    person text NOT NULL,
    used_on date NOT NULL,
    tokens bigint NOT NULL CHECK (tokens > 0),
    PRIMARY KEY (person, used_on)
);
GRANT SELECT ON login_ingest.find_usage TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.find_usage IS 'How many tokens each person has looked for on each day.';
COMMENT ON COLUMN login_ingest.find_usage.used_on IS 'The day, UTC.';

-- One line of text that says something.
CREATE FUNCTION login_ingest.is_valid_text(words text) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = login_ingest, pg_temp
RETURN coalesce(words ~ '\S' AND words !~ '[[:cntrl:]]' AND length(words) <= 500, false);

-- What the audit keeps of tokens: enough to ask of one whether it was there, and too little to give
-- an original back after it was erased, for the audit is never changed.
CREATE FUNCTION login_ingest.token_digests(tokens text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = login_ingest, pg_temp
RETURN (
    SELECT jsonb_agg(encode(sha256(convert_to(named.token, 'UTF8')), 'hex') ORDER BY named.place)
    FROM unnest(tokens) WITH ORDINALITY AS named (token, place)
);

-- What is no token is counted and not kept, since it may be a raw value.
CREATE FUNCTION login_ingest.request_unmask(
    wanted text[],
    reason_given text,
    ticket_given text,
    at_most integer,
    OUT verdict text,
    OUT request bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = login_ingest, pg_temp
AS $$
DECLARE
    asked integer := coalesce(cardinality(wanted), 0);
    highest integer;
BEGIN
    SELECT least(max_tokens, at_most) INTO STRICT highest FROM unmask_policy;
    verdict := CASE
        WHEN asked > highest THEN 'limit_exceeded'
        WHEN asked = 0 OR EXISTS (
            SELECT FROM unnest(wanted) AS token
            WHERE login_ingest.token_field(token) IS NULL
        ) THEN 'invalid_tokens'
        WHEN NOT (is_valid_text(reason_given) AND is_valid_text(ticket_given)) THEN 'reason_required'
        ELSE 'requested'
    END;
    IF verdict <> 'requested' THEN
        PERFORM record_audit('unmask.request',
            jsonb_build_object('verdict', verdict, 'count', asked)::text);
        RETURN;
    END IF;
    INSERT INTO unmask_request (requester, reason, ticket, tokens)
    VALUES (session_user, reason_given, ticket_given, wanted) RETURNING request_id INTO request;
    PERFORM record_audit('unmask.request', jsonb_build_object(
        'verdict', verdict, 'request', request, 'reason', reason_given, 'ticket', ticket_given,
        'count', asked, 'sha256', token_digests(wanted))::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.request_unmask TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.request_unmask IS
'Asks for the originals of tokens. The verdict: requested, limit_exceeded, invalid_tokens, reason_required.';

CREATE FUNCTION login_ingest.approve_unmask(
    wanted bigint,
    minutes integer,
    OUT verdict text,
    OUT approved_until timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = login_ingest, pg_temp
AS $$
DECLARE
    asked unmask_request;
    longest integer;
BEGIN
    SELECT max_minutes INTO STRICT longest FROM unmask_policy;
    SELECT * INTO asked FROM unmask_request WHERE request_id = wanted FOR UPDATE;
    verdict := CASE
        WHEN asked.request_id IS NULL THEN 'unknown_request'
        WHEN asked.requester = session_user THEN 'own_request'
        WHEN NOT (is_recovery(session_user) AND is_recovery(asked.requester))
            THEN 'second_person_required'
        WHEN asked.withdrawn_at IS NOT NULL THEN 'request_withdrawn'
        WHEN asked.expires_at > clock_timestamp() THEN 'already_approved'
        WHEN (minutes BETWEEN 1 AND longest) IS NOT TRUE THEN 'too_long'
        ELSE 'approved'
    END;
    IF verdict = 'approved' THEN
        approved_until := clock_timestamp() + make_interval(mins => minutes);
        UPDATE unmask_request
        SET approver = session_user, approved_at = clock_timestamp(), expires_at = approved_until
        WHERE request_id = wanted;
    END IF;
    PERFORM record_audit('unmask.approve', jsonb_build_object(
        'verdict', verdict, 'request', wanted, 'requester', asked.requester,
        'minutes', minutes, 'count', cardinality(asked.tokens))::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.approve_unmask TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.approve_unmask IS
'Approves the request of another person for so many minutes. The verdict: approved, '
'unknown_request, own_request, second_person_required, request_withdrawn, already_approved, too_long.';

CREATE FUNCTION login_ingest.reveal_unmask(wanted bigint, OUT verdict text, OUT tokens text[])
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = login_ingest, pg_temp
AS $$
DECLARE
    asked unmask_request;
    highest integer;
BEGIN
    SELECT max_tokens INTO STRICT highest FROM unmask_policy;
    SELECT * INTO asked FROM unmask_request WHERE request_id = wanted FOR UPDATE;
    verdict := CASE
        WHEN asked.request_id IS NULL THEN 'unknown_request'
        WHEN asked.requester <> session_user THEN 'not_the_requester'
        WHEN asked.withdrawn_at IS NOT NULL THEN 'request_withdrawn'
        WHEN asked.approver IS NULL THEN 'not_approved'
        WHEN NOT (asked.approver <> asked.requester
            AND is_recovery(asked.approver) AND is_recovery(asked.requester))
            THEN 'second_person_required'
        WHEN (asked.expires_at > clock_timestamp()) IS NOT TRUE THEN 'expired'
        WHEN (cardinality(asked.tokens) <= highest) IS NOT TRUE THEN 'limit_exceeded'
        WHEN cardinality(asked.tokens) = 0 THEN 'erased'
        ELSE 'revealed'
    END;
    IF verdict = 'revealed' THEN
        tokens := asked.tokens;
    END IF;
    PERFORM record_audit('unmask.reveal', jsonb_build_object(
        'verdict', verdict, 'request', wanted, 'approver', asked.approver,
        'count', cardinality(asked.tokens), 'sha256', token_digests(tokens))::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.reveal_unmask TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.reveal_unmask IS
'Gives the tokens of an approved request to its requester. The verdict: revealed, '
'unknown_request, not_the_requester, request_withdrawn, not_approved, second_person_required, expired, '
'limit_exceeded, erased.';

CREATE FUNCTION login_ingest.withdraw_unmask(
    wanted bigint,
    OUT verdict text,
    OUT by_person text,
    OUT since timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked login_ingest.unmask_request;
BEGIN
    SELECT * INTO asked FROM login_ingest.unmask_request WHERE request_id = wanted FOR UPDATE;
    verdict := CASE
        WHEN asked.request_id IS NULL THEN 'unknown_request'
        WHEN asked.withdrawn_at IS NOT NULL THEN 'already_withdrawn'
        ELSE 'withdrawn'
    END;
    by_person := asked.withdrawn_by;
    since := asked.withdrawn_at;
    IF verdict = 'withdrawn' THEN
        by_person := session_user;
        since := clock_timestamp();
        UPDATE login_ingest.unmask_request SET withdrawn_by = by_person, withdrawn_at = since
        WHERE request_id = wanted;
    END IF;
    PERFORM login_ingest.record_audit('unmask.withdraw', jsonb_build_object(
        'verdict', verdict, 'request', wanted, 'requester', asked.requester,
        'approver', asked.approver)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.withdraw_unmask TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.withdraw_unmask IS
'Closes a request for good. The verdict: withdrawn, unknown_request, already_withdrawn.';

-- One row for each person and day, which a second call waits for: two at once spend both.
CREATE FUNCTION login_ingest.consume_find_quota(asked integer) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    per_day bigint;
BEGIN
    SELECT max_find_tokens_per_day INTO STRICT per_day FROM login_ingest.unmask_policy;
    IF asked > per_day THEN
        RETURN false;
    END IF;
    INSERT INTO login_ingest.find_usage AS known (person, used_on, tokens)
    VALUES (session_user, (clock_timestamp() AT TIME ZONE 'UTC')::date, asked)
    ON CONFLICT (person, used_on) DO UPDATE SET tokens = known.tokens + excluded.tokens
    WHERE known.tokens + excluded.tokens <= per_day;
    RETURN FOUND;
END $$;

CREATE FUNCTION login_ingest.clear_columns() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (
    SELECT string_agg(quote_ident(known.column_name), ', ' ORDER BY known.place)
    FROM login_ingest.login_column AS known
    LEFT JOIN login_ingest.masked_field AS field ON known.column_name = field.token_column
    WHERE field.name IS NULL
);
COMMENT ON FUNCTION login_ingest.clear_columns IS
'The columns of user_logins that hold no tokens, as a list in SQL.';

-- Only digests of what is known to be a token are kept. One statement counts and shows, so that
-- both agree.
CREATE FUNCTION login_ingest.find_rows(
    p_field text,
    wanted text[],
    most_rows integer,
    OUT verdict text,
    OUT counts jsonb,
    OUT newest jsonb
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked integer := coalesce(cardinality(wanted), 0);
    digests jsonb;
BEGIN
    verdict := CASE
        WHEN asked > (SELECT max_find_tokens FROM login_ingest.unmask_policy)
            THEN 'find_limit_exceeded'
        WHEN asked = 0 OR EXISTS (
            SELECT FROM unnest(wanted) AS token
            WHERE (login_ingest.token_field(token) = p_field) IS NOT TRUE
        ) THEN 'invalid_tokens'
        WHEN NOT login_ingest.consume_find_quota(asked) THEN 'daily_limit_exceeded'
        ELSE 'found'
    END;
    IF verdict <> 'found' THEN
        PERFORM login_ingest.record_audit('find',
            jsonb_build_object('verdict', verdict, 'count', asked)::text);
        RETURN;
    END IF;
    EXECUTE format('
        SELECT (SELECT coalesce(jsonb_object_agg(token, rows), ''{}'') FROM (
                    SELECT %1$I AS token, count(*) AS rows FROM %2$s
                    WHERE %1$I = ANY ($1) GROUP BY 1) AS counted),
               (SELECT coalesce(jsonb_agg(to_jsonb(newest)), ''[]'') FROM (
                    SELECT %1$I AS token, %3$s FROM %2$s WHERE %1$I = ANY ($1)
                    ORDER BY create_date DESC NULLS LAST, user_id LIMIT $2) AS newest)',
        login_ingest.token_column(p_field), login_ingest.user_logins(),
        login_ingest.clear_columns())
    INTO counts, newest USING wanted, greatest(coalesce(most_rows, 0), 0);
    SELECT jsonb_object_agg(encode(sha256(convert_to(token, 'UTF8')), 'hex'),
                            coalesce((counts -> token)::bigint, 0))
    INTO digests FROM unnest(wanted) AS token;
    PERFORM login_ingest.record_audit('find', jsonb_build_object(
        'verdict', verdict, 'field', p_field, 'count', asked,
        'rows_by_sha256', digests)::text);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.find_rows TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.find_rows IS
'Counts the rows of tokens and shows the newest. The verdict: found, find_limit_exceeded, invalid_tokens, '
'daily_limit_exceeded.';

RESET ROLE;
