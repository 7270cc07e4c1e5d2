-- Erasure with a certificate: the database deletes, counts what it deleted, and counts what
-- remains.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.erasure (
    erasure_id text PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL DEFAULT session_user,
    kind text NOT NULL,
    subjects integer NOT NULL CHECK (subjects > 0),
    reason text NOT NULL CHECK (reason <> ''),
    ticket text NOT NULL CHECK (ticket <> ''),
    logins bigint NOT NULL DEFAULT 0,
    links bigint NOT NULL DEFAULT 0,
    md5_matches bigint NOT NULL DEFAULT 0,
    unmask_requests bigint NOT NULL DEFAULT 0,
    messages bigint NOT NULL DEFAULT 0,
    remaining_rows bigint,
    remaining_messages bigint,
    unsearched_rows bigint,
    unreadable_rows bigint,
    unreadable_messages bigint,
    waiting_messages bigint,
    finished_at timestamptz,
    verified boolean NOT NULL DEFAULT false,
    field text GENERATED ALWAYS AS (nullif(kind, 'user')) STORED
    REFERENCES login_ingest.masked_field,
    CONSTRAINT verified_complete CHECK (
        NOT verified OR (
            finished_at IS NOT NULL AND remaining_rows = 0 AND remaining_messages = 0
            AND unsearched_rows = 0 AND unreadable_rows = 0 AND unreadable_messages = 0
        ) IS TRUE
    )
);
GRANT SELECT ON login_ingest.erasure TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.erasure IS
'Certificates of erasure. They contain nothing that identifies a subject.';
COMMENT ON COLUMN login_ingest.erasure.actor IS 'session_user who began the erasure.';
COMMENT ON COLUMN login_ingest.erasure.kind IS
'Kind of the subjects: the name of a masked field, or user.';
COMMENT ON COLUMN login_ingest.erasure.field IS 'The masked field. Null if the subjects are users.';
COMMENT ON COLUMN login_ingest.erasure.subjects IS 'Number of values or users to erase.';
COMMENT ON COLUMN login_ingest.erasure.logins IS
'Rows of user_logins whose token was set to null, or that were deleted.';
COMMENT ON COLUMN login_ingest.erasure.links IS 'Links that were deleted.';
COMMENT ON COLUMN login_ingest.erasure.md5_matches IS
'Matches of an unfinished upgrade from MD5 that were deleted.';
COMMENT ON COLUMN login_ingest.erasure.unmask_requests IS
'Requests to unmask from which a token was removed.';
COMMENT ON COLUMN login_ingest.erasure.messages IS 'Quarantined messages that were deleted.';
COMMENT ON COLUMN login_ingest.erasure.remaining_rows IS
'Rows of user_logins, links, matches and requests with a subject after the erasure.';
COMMENT ON COLUMN login_ingest.erasure.remaining_messages IS
'Quarantined messages that contain a subject after the erasure. Reported by the command, which '
'alone can open them.';
COMMENT ON COLUMN login_ingest.erasure.unsearched_rows IS
'Rows under keys for which fewer tokens than subjects were given: not all subjects were searched '
'there.';
COMMENT ON COLUMN login_ingest.erasure.unreadable_rows IS
'Rows under keys that the keyset does not have. Reported by the command.';
COMMENT ON COLUMN login_ingest.erasure.unreadable_messages IS
'Quarantined messages that could not be opened. Reported by the command; the database adds '
'messages that the command did not examine.';
COMMENT ON COLUMN login_ingest.erasure.waiting_messages IS
'Messages in the quarantine at the end of the erasure.';
COMMENT ON COLUMN login_ingest.erasure.verified IS
'True if nothing remains and everything was examined.';

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
'Begins an erasure. Does nothing if it has begun.';

-- For functions of this schema only.
CREATE FUNCTION login_ingest.record_erased(
    p_erasure text,
    p_place text,
    p_erased bigint
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE login_ingest.erasure SET
        logins = logins + CASE p_place WHEN 'logins' THEN p_erased ELSE 0 END,
        links = links + CASE p_place WHEN 'links' THEN p_erased ELSE 0 END,
        md5_matches = md5_matches + CASE p_place WHEN 'md5_matches' THEN p_erased ELSE 0 END,
        unmask_requests = unmask_requests
        + CASE p_place WHEN 'unmask_requests' THEN p_erased ELSE 0 END,
        messages = messages + CASE p_place WHEN 'messages' THEN p_erased ELSE 0 END
    WHERE erasure_id = p_erasure AND actor = session_user AND finished_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'session_user has no unfinished erasure with this id'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF p_erased > 0 THEN
        PERFORM login_ingest.record_audit('erase.apply', json_build_object(
            'erasure_id', p_erasure, 'place', p_place, 'erased', p_erased)::text);
    END IF;
END $$;

-- Links lead to tokens under keys that the keyset no longer contains.
CREATE FUNCTION login_ingest.linked_tokens(p_field text, p_tokens text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_tokens text[];
BEGIN
    PERFORM login_ingest.token_column(p_field);
    WITH RECURSIVE connected (token) AS (
        SELECT unnest(p_tokens)
        UNION
        SELECT CASE WHEN link.old_token = connected.token
                    THEN link.new_token ELSE link.old_token END
        FROM connected JOIN login_ingest.token_link link
          ON link.field = p_field AND connected.token IN (link.old_token, link.new_token)
    )
    SELECT array_agg(token ORDER BY token) INTO found_tokens FROM connected;
    RETURN found_tokens;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.linked_tokens TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.linked_tokens IS
'Returns the tokens and all tokens that are connected with them by links.';

CREATE FUNCTION login_ingest.erase_tokens(
    p_erasure text,
    p_field text,
    p_tokens text[],
    p_limit integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    erased bigint;
BEGIN
    PERFORM login_ingest.wait_for_lock('logins');
    EXECUTE format($sql$
        WITH selected AS (
            SELECT tableoid AS row_table, ctid AS row_ctid FROM %2$s
            WHERE %1$I = ANY ($1) LIMIT $2 FOR UPDATE
        )
        UPDATE %2$s AS login SET %1$I = NULL FROM selected
        WHERE login.tableoid = selected.row_table AND login.ctid = selected.row_ctid
          AND login.%1$I = ANY ($1)
    $sql$, login_ingest.token_column(p_field), login_ingest.logins_table())
    USING p_tokens, p_limit;
    GET DIAGNOSTICS erased = ROW_COUNT;
    PERFORM login_ingest.record_erased(p_erasure, 'logins', erased);
    RETURN erased;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_tokens TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_tokens IS
'Sets tokens to null in at most p_limit rows of user_logins. Returns the number of rows.';

CREATE FUNCTION login_ingest.erase_users(
    p_erasure text,
    p_users text[],
    p_limit integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    PERFORM login_ingest.wait_for_lock('logins');
    EXECUTE format($sql$
        WITH selected AS (
            SELECT tableoid AS row_table, ctid AS row_ctid FROM %1$s
            WHERE user_id = ANY ($1) LIMIT $2 FOR UPDATE
        )
        DELETE FROM %1$s AS login USING selected
        WHERE login.tableoid = selected.row_table AND login.ctid = selected.row_ctid
          AND user_id = ANY ($1)
    $sql$, login_ingest.logins_table())
    USING p_users, p_limit;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM login_ingest.record_erased(p_erasure, 'logins', deleted);
    RETURN deleted;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_users TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_users IS
'Deletes at most p_limit rows of users from user_logins. Returns the number of rows.';

CREATE FUNCTION login_ingest.erase_links(
    p_erasure text,
    p_field text,
    p_tokens text[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    PERFORM login_ingest.token_column(p_field);
    -- Writers of links hold this lock until they commit, so that no uncommitted link survives.
    PERFORM login_ingest.wait_for_lock('links');
    DELETE FROM login_ingest.token_link
    WHERE field = p_field AND (old_token = ANY (p_tokens) OR new_token = ANY (p_tokens));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM login_ingest.record_erased(p_erasure, 'links', deleted);
    RETURN deleted;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_links TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_links IS
'Deletes the links of tokens. Returns their number.';

CREATE FUNCTION login_ingest.erase_quarantined(
    p_erasure text,
    p_message_ids text[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    DELETE FROM login_ingest.quarantine WHERE message_id = ANY (p_message_ids);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM login_ingest.record_erased(p_erasure, 'messages', deleted);
    RETURN deleted;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_quarantined TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_quarantined IS
'Deletes quarantined messages. Returns their number.';

CREATE FUNCTION login_ingest.count_remaining_links(p_field text, p_tokens text[]) RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) FROM login_ingest.token_link
    WHERE field = p_field AND (old_token = ANY (p_tokens) OR new_token = ANY (p_tokens))
$$;
COMMENT ON FUNCTION login_ingest.count_remaining_links IS
'Returns the number of links with one of the tokens.';

-- An operation with tokens in a table of its own counts them in a function count_remaining_... of
-- its own file.
CREATE FUNCTION login_ingest.count_remaining(p_kind text, p_keys text[]) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    column_name text := CASE p_kind WHEN 'user' THEN 'user_id'
                                    ELSE login_ingest.token_column(p_kind) END;
    counter regproc;
    counted bigint;
    total bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM %s WHERE %I = ANY ($1)',
                   login_ingest.logins_table(), column_name) INTO total USING p_keys;
    IF p_kind = 'user' THEN
        RETURN total;
    END IF;
    FOR counter IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'login_ingest'::regnamespace AND proname ~ '^count_remaining_.+$'
    LOOP
        EXECUTE format('SELECT %s($1, $2)', counter) INTO counted USING p_kind, p_keys;
        total := total + counted;
    END LOOP;
    RETURN total;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.count_remaining TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.count_remaining IS
'Returns the number of rows, links, recorded digests and requests with one of the tokens or users.';

-- A value has one token under each key. If fewer tokens than values were given under a key, its
-- rows may contain a value that was not searched. Prefixes are grouped first, so that few are
-- decoded.
CREATE FUNCTION login_ingest.unsearched_rows(p_kind text, p_keys text[], p_subjects integer)
RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    counted bigint;
BEGIN
    EXECUTE format($sql$
        SELECT coalesce(sum(prefixes.rows), 0)::bigint
        FROM (
            SELECT left(%1$I, length($1) + 9) AS prefix, count(*) AS rows FROM %2$s GROUP BY 1
        ) AS prefixes
        JOIN login_ingest.masked_field AS field ON field.name = split_part(prefixes.prefix, ':', 1)
        WHERE login_ingest.token_key_id(prefixes.prefix) IS NOT NULL AND $3 > (
            SELECT count(DISTINCT input.token) FROM unnest($2) AS input (token)
            WHERE starts_with(input.token, $1 || ':')
              AND login_ingest.token_key_id(input.token) = login_ingest.token_key_id(prefixes.prefix))
    $sql$, login_ingest.token_column(p_kind), login_ingest.logins_table())
    INTO counted USING p_kind, p_keys, p_subjects;
    RETURN counted;
END $$;

-- Only the caller can open sealed bodies, so the caller reports their counts. The certificate also
-- has the number of messages in the quarantine.
CREATE FUNCTION login_ingest.finish_erasure(
    p_erasure text,
    p_keys text[],
    p_examined_messages bigint,
    p_remaining_messages bigint,
    p_unreadable_messages bigint,
    p_unreadable_rows bigint
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    finished login_ingest.erasure;
BEGIN
    SELECT * INTO finished FROM login_ingest.erasure
    WHERE erasure_id = p_erasure AND actor = session_user AND finished_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF (p_examined_messages >= 0 AND p_remaining_messages >= 0 AND p_unreadable_messages >= 0
        AND p_unreadable_rows >= 0) IS NOT TRUE THEN
        RAISE EXCEPTION 'a count is null or negative' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF finished.subjects > (
        SELECT count(DISTINCT key) FROM unnest(p_keys) AS key
        WHERE finished.kind = 'user' OR starts_with(key, finished.kind || ':')
    ) THEN
        RAISE EXCEPTION 'fewer keys than subjects' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    finished.remaining_rows := login_ingest.count_remaining(finished.kind, p_keys);
    finished.remaining_messages := p_remaining_messages;
    finished.unsearched_rows := CASE finished.kind WHEN 'user' THEN 0
        ELSE login_ingest.unsearched_rows(finished.kind, p_keys, finished.subjects) END;
    finished.unreadable_rows := p_unreadable_rows;
    SELECT count(*) INTO finished.waiting_messages FROM login_ingest.quarantine;
    finished.unreadable_messages := p_unreadable_messages
        + greatest(finished.waiting_messages - p_examined_messages, 0);
    finished.verified := finished.remaining_rows = 0 AND finished.remaining_messages = 0
        AND finished.unsearched_rows = 0 AND finished.unreadable_rows = 0
        AND finished.unreadable_messages = 0;
    UPDATE login_ingest.erasure
    SET remaining_rows = finished.remaining_rows,
        remaining_messages = finished.remaining_messages,
        unsearched_rows = finished.unsearched_rows, unreadable_rows = finished.unreadable_rows,
        unreadable_messages = finished.unreadable_messages,
        waiting_messages = finished.waiting_messages, verified = finished.verified,
        finished_at = clock_timestamp()
    WHERE erasure_id = p_erasure;
    PERFORM login_ingest.record_audit('erase.finish', json_build_object(
        'erasure_id', p_erasure, 'logins', finished.logins, 'links', finished.links,
        'md5_matches', finished.md5_matches, 'unmask_requests', finished.unmask_requests,
        'messages', finished.messages, 'remaining_rows', finished.remaining_rows,
        'remaining_messages', finished.remaining_messages,
        'unsearched_rows', finished.unsearched_rows, 'unreadable_rows', finished.unreadable_rows,
        'unreadable_messages', finished.unreadable_messages,
        'waiting_messages', finished.waiting_messages, 'verified', finished.verified)::text);
    RETURN finished.verified;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.finish_erasure TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.finish_erasure IS
'Finishes an erasure. Returns true if it is verified, false if not, and false if session_user has '
'no unfinished erasure with this id.';

RESET ROLE;
