-- Erasure, with a certificate: the database deletes, counts what it deleted and looks at what is
-- left.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.erasure (
    erasure_id text PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    person text NOT NULL DEFAULT session_user,
    kind text NOT NULL,
    subjects integer NOT NULL CHECK (subjects > 0),
    reason text NOT NULL CHECK (reason <> ''),
    ticket text NOT NULL CHECK (ticket <> ''),
    logins bigint NOT NULL DEFAULT 0,
    links bigint NOT NULL DEFAULT 0,
    matches bigint NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    remaining bigint,
    uncovered bigint,
    sealed bigint,
    held bigint,
    unopened bigint NOT NULL DEFAULT 0,
    finished_at timestamptz,
    verified boolean NOT NULL DEFAULT false,
    field text GENERATED ALWAYS AS (nullif(kind, 'user')) STORED
    REFERENCES login_ingest.masked_field,
    CONSTRAINT verified_is_clean CHECK (
        NOT verified OR (finished_at IS NOT NULL AND remaining = 0 AND unopened = 0)
    ),
    CONSTRAINT verified_by_database CHECK (
        NOT verified OR (coalesce(uncovered, 0) = 0 AND coalesce(held, 0) = 0)
    )
);
GRANT SELECT ON login_ingest.erasure TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.erasure IS
'Certificates of erasure; nothing that identifies what went.';
COMMENT ON COLUMN login_ingest.erasure.person IS 'The session_user who began it.';
COMMENT ON COLUMN login_ingest.erasure.kind IS
'What the subjects are: the name of a masked field, or user.';
COMMENT ON COLUMN login_ingest.erasure.field IS 'The masked field; null if users were erased.';
COMMENT ON COLUMN login_ingest.erasure.subjects IS 'How many values or users were to go.';
COMMENT ON COLUMN login_ingest.erasure.logins IS
'Rows of user_logins that lost a token, or went with their user.';
COMMENT ON COLUMN login_ingest.erasure.links IS 'Links that were deleted.';
COMMENT ON COLUMN login_ingest.erasure.matches IS 'What an unfinished upgrade from MD5 had noted.';
COMMENT ON COLUMN login_ingest.erasure.requests IS 'Requests to unmask that lost a token.';
COMMENT ON COLUMN login_ingest.erasure.quarantined IS 'Quarantined messages that were deleted.';
COMMENT ON COLUMN login_ingest.erasure.remaining IS 'Things that the database found afterwards.';
COMMENT ON COLUMN login_ingest.erasure.uncovered IS
'Rows, by the database, under keys of which fewer tokens were named than there are subjects.';
COMMENT ON COLUMN login_ingest.erasure.sealed IS
'Messages in the quarantine at the end, by the database.';
COMMENT ON COLUMN login_ingest.erasure.held IS
'Quarantined messages that still hold a subject: the command says so.';
COMMENT ON COLUMN login_ingest.erasure.unopened IS
'Things that could not be looked into: the command says so; the database adds messages that the '
'command has not seen.';
COMMENT ON COLUMN login_ingest.erasure.verified IS
'Whether nothing of the subjects was left or could not be looked into.';

CREATE FUNCTION login_ingest.begin_erasure(
    p_erasure text,
    p_kind text,
    p_subjects integer,
    p_reason text,
    p_ticket text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO login_ingest.erasure (erasure_id, kind, subjects, reason, ticket)
    VALUES (p_erasure, p_kind, p_subjects, p_reason, p_ticket)
    ON CONFLICT (erasure_id) DO NOTHING;
    IF FOUND THEN
        PERFORM login_ingest.record_audit('erase.begin', json_build_object(
            'erasure_id', p_erasure, 'kind', p_kind, 'subjects', p_subjects,
            'reason', p_reason, 'ticket', p_ticket)::text);
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.begin_erasure TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.begin_erasure IS
'Begins an erasure; does nothing if it has begun.';

-- Only for the functions below: what was erased goes into the certificate and into the audit.
CREATE FUNCTION login_ingest.count_erased(
    p_erasure text,
    p_place text,
    gone bigint
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE login_ingest.erasure SET
        logins = logins + CASE p_place WHEN 'logins' THEN gone ELSE 0 END,
        links = links + CASE p_place WHEN 'links' THEN gone ELSE 0 END,
        matches = matches + CASE p_place WHEN 'matches' THEN gone ELSE 0 END,
        requests = requests + CASE p_place WHEN 'requests' THEN gone ELSE 0 END,
        quarantined = quarantined + CASE p_place WHEN 'quarantined' THEN gone ELSE 0 END
    WHERE erasure_id = p_erasure AND person = session_user AND finished_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no erasure of this person is under way'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF gone > 0 THEN
        PERFORM login_ingest.record_audit('erase', json_build_object(
            'erasure_id', p_erasure, 'place', p_place, 'erased', gone)::text);
    END IF;
END $$;

-- Rows that still hold a token of a key that is gone are found by its links.
CREATE FUNCTION login_ingest.linked_tokens(p_field text, given text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_tokens text[];
BEGIN
    PERFORM login_ingest.token_column(p_field);
    WITH RECURSIVE known (token) AS (
        SELECT unnest(given)
        UNION
        SELECT CASE WHEN link.old_token = known.token THEN link.new_token ELSE link.old_token END
        FROM known JOIN login_ingest.token_link link
          ON link.field = p_field AND known.token IN (link.old_token, link.new_token)
    )
    SELECT array_agg(token ORDER BY token) INTO found_tokens FROM known;
    RETURN found_tokens;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.linked_tokens TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.linked_tokens IS
'The given tokens and all that links connect with them.';

CREATE FUNCTION login_ingest.erase_tokens(
    p_erasure text,
    p_field text,
    tokens text[],
    at_most integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone bigint;
BEGIN
    EXECUTE format($sql$
        WITH picked AS (
            SELECT tableoid AS part, ctid AS place FROM %2$s
            WHERE %1$I = ANY ($1) LIMIT $2 FOR UPDATE
        )
        UPDATE %2$s AS login SET %1$I = NULL FROM picked
        WHERE login.tableoid = picked.part AND login.ctid = picked.place AND login.%1$I = ANY ($1)
    $sql$, login_ingest.token_column(p_field), login_ingest.user_logins())
    USING tokens, at_most;
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'logins', gone);
    RETURN gone;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_tokens TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_tokens IS
'Sets tokens in user_logins to null, in at most so many rows: in how many.';

CREATE FUNCTION login_ingest.erase_users(
    p_erasure text,
    users text[],
    at_most integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone bigint;
BEGIN
    EXECUTE format($sql$
        WITH picked AS (
            SELECT tableoid AS part, ctid AS place FROM %1$s
            WHERE user_id = ANY ($1) LIMIT $2 FOR UPDATE
        )
        DELETE FROM %1$s AS login USING picked
        WHERE login.tableoid = picked.part AND login.ctid = picked.place AND user_id = ANY ($1)
    $sql$, login_ingest.user_logins())
    USING users, at_most;
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'logins', gone);
    RETURN gone;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_users TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_users IS
'Deletes at most so many rows of users from user_logins: how many.';

CREATE FUNCTION login_ingest.erase_links(
    p_erasure text,
    p_field text,
    tokens text[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone bigint;
BEGIN
    PERFORM login_ingest.token_column(p_field);
    -- The lock that whoever writes links holds: one that is not committed yet must not survive.
    PERFORM login_ingest.wait_for_lock('links');
    DELETE FROM login_ingest.token_link
    WHERE field = p_field AND (old_token = ANY (tokens) OR new_token = ANY (tokens));
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'links', gone);
    -- What an unfinished upgrade from MD5 has found would bring the token back.
    DELETE FROM login_ingest.md5_match
    WHERE field = p_field AND (new_token = ANY (tokens) OR digest = ANY (tokens));
    RETURN gone;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_links TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_links IS 'Deletes the links of tokens: how many.';

-- What an unfinished upgrade from MD5 has found would bring the token back.
CREATE FUNCTION login_ingest.erase_matches(
    p_erasure text,
    p_field text,
    tokens text[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone bigint;
BEGIN
    PERFORM login_ingest.token_column(p_field);
    DELETE FROM login_ingest.md5_match
    WHERE field = p_field AND (new_token = ANY (tokens) OR digest = ANY (tokens));
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'matches', gone);
    RETURN gone;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_matches TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_matches IS 'Deletes the noted digests of tokens: how many.';

-- A request keeps its person, reason and approval, and the tokens of other values.
CREATE FUNCTION login_ingest.erase_requests(p_erasure text, erased text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone bigint;
BEGIN
    UPDATE login_ingest.unmask_request
    SET tokens = ARRAY(SELECT token FROM unnest(tokens) AS token WHERE token <> ALL (erased))
    WHERE tokens && erased;
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'requests', gone);
    RETURN gone;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_requests TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_requests IS
'Takes tokens out of the requests to unmask: out of how many.';

CREATE FUNCTION login_ingest.erase_quarantined(
    p_erasure text,
    message_ids text[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM login_ingest.quarantine WHERE message_id = ANY (message_ids);
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'quarantined', gone);
    RETURN gone;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_quarantined TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_quarantined IS 'Deletes quarantined messages: how many.';

CREATE FUNCTION login_ingest.erasure_remains(p_kind text, subjects text[]) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    searched text := CASE p_kind WHEN 'user' THEN 'user_id'
                                   ELSE login_ingest.token_column(p_kind) END;
    logins bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM %s WHERE %I = ANY ($1)',
                   login_ingest.user_logins(), searched) INTO logins USING subjects;
    IF p_kind = 'user' THEN
        RETURN logins;
    END IF;
    RETURN logins
         + (SELECT count(*) FROM login_ingest.token_link
            WHERE field = p_kind
              AND (old_token = ANY (subjects) OR new_token = ANY (subjects)))
         + (SELECT count(*) FROM login_ingest.md5_match
            WHERE field = p_kind
              AND (new_token = ANY (subjects) OR digest = ANY (subjects)))
         + (SELECT count(*) FROM login_ingest.unmask_request WHERE tokens && subjects);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erasure_remains TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erasure_remains IS
'How many rows, links, noted digests and requests hold one of the tokens or users.';

-- A value has one token under each key: where fewer tokens than values are named under a key, its
-- rows may be those of a value that was not looked for. Heads are grouped first, so that few are
-- decoded.
CREATE FUNCTION login_ingest.uncovered_rows(p_kind text, keys text[], subjects integer)
RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    uncovered bigint;
BEGIN
    EXECUTE format($sql$
        SELECT coalesce(sum(heads.rows), 0)::bigint
        FROM (
            SELECT left(%1$I, length($1) + 9) AS head, count(*) AS rows FROM %2$s GROUP BY 1
        ) AS heads
        JOIN login_ingest.masked_field AS field ON field.name = split_part(heads.head, ':', 1)
        WHERE login_ingest.token_key(heads.head) IS NOT NULL AND $3 > (
            SELECT count(DISTINCT named.token) FROM unnest($2) AS named (token)
            WHERE starts_with(named.token, $1 || ':')
              AND login_ingest.token_key(named.token) = login_ingest.token_key(heads.head))
    $sql$, login_ingest.token_column(p_kind), login_ingest.user_logins())
    INTO uncovered USING p_kind, keys, subjects;
    RETURN uncovered;
END $$;

-- The database counts what it sees. Sealed bodies only the caller opens, so their numbers are the
-- caller's, and stand in the certificate beside how many of them there were.
CREATE FUNCTION login_ingest.finish_erasure(
    p_erasure text,
    keys text[],
    looked_into bigint,
    still_held bigint,
    not_opened bigint
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    done login_ingest.erasure;
BEGIN
    SELECT * INTO done FROM login_ingest.erasure
    WHERE erasure_id = p_erasure AND person = session_user AND finished_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF looked_into >= 0 AND still_held >= 0 AND not_opened >= 0 THEN NULL; ELSE
        RAISE EXCEPTION 'a count is missing' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF done.subjects > (
        SELECT count(DISTINCT key) FROM unnest(keys) AS key
        WHERE done.kind = 'user' OR starts_with(key, done.kind || ':')
    ) THEN
        RAISE EXCEPTION 'fewer keys than subjects' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    done.remaining := login_ingest.erasure_remains(done.kind, keys);
    done.uncovered := CASE done.kind WHEN 'user' THEN 0
        ELSE login_ingest.uncovered_rows(done.kind, keys, done.subjects) END;
    SELECT count(*) INTO done.sealed FROM login_ingest.quarantine;
    done.held := still_held;
    done.unopened := not_opened + greatest(done.sealed - looked_into, 0);
    done.verified := done.remaining = 0 AND done.uncovered = 0
        AND done.held = 0 AND done.unopened = 0;
    UPDATE login_ingest.erasure
    SET remaining = done.remaining, uncovered = done.uncovered, sealed = done.sealed,
        held = done.held, unopened = done.unopened, verified = done.verified,
        finished_at = clock_timestamp()
    WHERE erasure_id = p_erasure;
    PERFORM login_ingest.record_audit('erase.finish', json_build_object(
        'erasure_id', p_erasure, 'logins', done.logins, 'links', done.links,
        'matches', done.matches, 'requests', done.requests, 'quarantined', done.quarantined,
        'remaining', done.remaining, 'uncovered', done.uncovered, 'sealed', done.sealed,
        'held', done.held, 'unopened', done.unopened, 'verified', done.verified)::text);
    RETURN done.verified;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.finish_erasure TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.finish_erasure IS
'Ends an erasure: whether it is verified. False if no erasure of the person is under way.';

RESET ROLE;
