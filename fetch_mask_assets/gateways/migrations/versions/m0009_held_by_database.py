"""What was the caller's word and is the database's now.

What an erasure left, how much one person may find, how long the quarantine is kept; and the
withdrawal of an approval.
"""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import AUDITOR, OWNER, RECOVERY

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TABLES = (
    """
    ALTER TABLE login_ingest.unmask_policy
    ADD COLUMN max_find_tokens integer NOT NULL DEFAULT 300 CHECK (max_find_tokens > 0),
    ADD COLUMN max_find_tokens_per_day integer NOT NULL DEFAULT 3000 CHECK (max_find_tokens_per_day > 0)
    """,
    """
    CREATE TABLE login_ingest.find_usage (
        person  text   NOT NULL,
        used_on date   NOT NULL,
        tokens  bigint NOT NULL CHECK (tokens > 0),
        PRIMARY KEY (person, used_on)
    )
    """,
    """
    CREATE TABLE login_ingest.quarantine_policy (
        only_row           boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        min_keep_days integer NOT NULL DEFAULT 7 CHECK (min_keep_days > 0)
    )
    """,
    "INSERT INTO login_ingest.quarantine_policy DEFAULT VALUES",
    """
    ALTER TABLE login_ingest.unmask_request
    ADD COLUMN withdrawn_by text,
    ADD COLUMN withdrawn_at timestamptz,
    ADD CONSTRAINT whole_withdrawal CHECK (num_nulls(withdrawn_by, withdrawn_at) IN (0, 2))
    """,
    # Null where a certificate is older than the column.
    """
    ALTER TABLE login_ingest.erasure
    ADD COLUMN matches   bigint NOT NULL DEFAULT 0,
    ADD COLUMN uncovered bigint,
    ADD COLUMN sealed    bigint,
    ADD COLUMN held      bigint,
    ADD CONSTRAINT verified_by_database
        CHECK (NOT verified OR (coalesce(uncovered, 0) = 0 AND coalesce(held, 0) = 0))
    """,
)

# A token of a field that is not under one of Tink's keys has none. As in the registry, the key's
# id stands behind the version byte, 1, in the first eight characters.
_KEY_ID = """
CREATE FUNCTION login_ingest.token_key(token text) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN token ~ '^(ip|device_id)[:]A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{6}' THEN
    ('x' || encode(substr(decode(translate(
        left(split_part(token, ':', 2), 8), '-_', '+/'), 'base64'), 2, 4), 'hex'))::bit(32)::bigint
END
"""

_COUNT_ERASED = """
CREATE OR REPLACE FUNCTION login_ingest.count_erased(p_erasure text, p_place text, gone bigint)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
END $$
"""

# What an unfinished upgrade from MD5 has found would bring the token back.
_ERASE_MATCHES = """
CREATE FUNCTION login_ingest.erase_matches(p_erasure text, p_field text, tokens text[])
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM login_ingest.md5_match
    WHERE field = p_field AND (new_token = ANY (tokens) OR digest = ANY (tokens));
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'matches', gone);
    RETURN gone;
END $$
"""

_ERASURE_REMAINS = """
CREATE OR REPLACE FUNCTION login_ingest.erasure_remains(p_kind text, subjects text[])
RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_kind = 'user' THEN
        RETURN (SELECT count(*) FROM {schema}.user_logins WHERE user_id = ANY (subjects));
    END IF;
    RETURN (SELECT count(*) FROM {schema}.user_logins
            WHERE (p_kind = 'ip' AND masked_ip = ANY (subjects))
               OR (p_kind = 'device_id' AND masked_device_id = ANY (subjects)))
         + (SELECT count(*) FROM login_ingest.token_link
            WHERE field = p_kind
              AND (old_token = ANY (subjects) OR new_token = ANY (subjects)))
         + (SELECT count(*) FROM login_ingest.md5_match
            WHERE field = p_kind
              AND (new_token = ANY (subjects) OR digest = ANY (subjects)))
         + (SELECT count(*) FROM login_ingest.unmask_request WHERE tokens && subjects);
END $$
"""

# A value has one token under each key: where fewer tokens than values are named under a key, its
# rows may be those of a value that was not looked for. Heads are grouped first, so that few are
# decoded.
_UNREACHED = """
CREATE FUNCTION login_ingest.uncovered_rows(p_kind text, keys text[], subjects integer)
RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(heads.rows), 0)::bigint
    FROM (
        SELECT left(CASE p_kind WHEN 'ip' THEN masked_ip
                                  WHEN 'device_id' THEN masked_device_id END,
                    length(p_kind) + 9) AS head, count(*) AS rows
        FROM {schema}.user_logins GROUP BY 1
    ) AS heads
    WHERE login_ingest.token_key(heads.head) IS NOT NULL AND subjects > (
        SELECT count(DISTINCT named.token) FROM unnest(keys) AS named (token)
        WHERE starts_with(named.token, p_kind || ':')
          AND login_ingest.token_key(named.token) = login_ingest.token_key(heads.head));
$$
"""

# The database counts what it sees. Sealed bodies only the caller opens, so their numbers are the
# caller's, and stand in the certificate beside how many of them there were.
_FINISH_ERASURE = """
CREATE FUNCTION login_ingest.finish_erasure(
    p_erasure text, keys text[], looked_into bigint, still_held bigint, not_opened bigint
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$
"""

# A refusal is a verdict and no error, so that it is committed with its record. Only digests of
# what is known to be a token are kept. One statement counts and shows, so that both agree.
_FIND_ROWS = """
CREATE FUNCTION login_ingest.find_rows(
    p_field text, wanted text[], most_rows integer,
    OUT verdict text, OUT counts jsonb, OUT newest jsonb
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    asked integer := coalesce(cardinality(wanted), 0);
    token_column text := CASE p_field WHEN 'ip' THEN 'masked_ip'
                                        WHEN 'device_id' THEN 'masked_device_id' END;
    digests jsonb;
BEGIN
    verdict := CASE
        WHEN asked > (SELECT max_find_tokens FROM login_ingest.unmask_policy)
            THEN 'find_limit_exceeded'
        WHEN asked = 0 OR token_column IS NULL OR EXISTS (
            SELECT FROM unnest(wanted) AS token
            WHERE (token ~ ('^' || p_field || ':[A-Za-z0-9_-]{50,246}$')) IS NOT TRUE
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
                    SELECT %1$I AS token, count(*) AS rows FROM {schema}.user_logins
                    WHERE %1$I = ANY ($1) GROUP BY 1) AS counted),
               (SELECT coalesce(jsonb_agg(to_jsonb(newest)), ''[]'') FROM (
                    SELECT %1$I AS token, user_id, device_type, locale, app_version, create_date
                    FROM {schema}.user_logins WHERE %1$I = ANY ($1)
                    ORDER BY create_date DESC NULLS LAST, user_id LIMIT $2) AS newest)',
        token_column)
    INTO counts, newest USING wanted, greatest(coalesce(most_rows, 0), 0);
    SELECT jsonb_object_agg(encode(sha256(convert_to(token, 'UTF8')), 'hex'),
                            coalesce((counts -> token)::bigint, 0))
    INTO digests FROM unnest(wanted) AS token;
    PERFORM login_ingest.record_audit('find', jsonb_build_object(
        'verdict', verdict, 'field', p_field, 'count', asked,
        'rows_by_sha256', digests)::text);
END $$
"""

# One row for each person and day, which a second call waits for: two at once spend both.
_SPEND_FIND = """
CREATE FUNCTION login_ingest.consume_find_quota(asked integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
END $$
"""

_EXPIRE = """
CREATE FUNCTION login_ingest.expire_quarantine(
    keep_days integer, at_most integer, OUT verdict text, OUT gone bigint, OUT at_least integer
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$
"""

_WITHDRAW = """
CREATE FUNCTION login_ingest.withdraw_unmask(
    wanted bigint, OUT verdict text, OUT by_person text, OUT since timestamptz
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$
"""

_APPROVE = """
CREATE OR REPLACE FUNCTION login_ingest.approve_unmask(
    wanted bigint, minutes integer, OUT verdict text, OUT approved_until timestamptz
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = login_ingest, pg_temp AS $$
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
END $$
"""

_REVEAL = """
CREATE OR REPLACE FUNCTION login_ingest.reveal_unmask(
    wanted bigint, OUT verdict text, OUT tokens text[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = login_ingest, pg_temp AS $$
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
END $$
"""

_FUNCTIONS = {
    "token_key(text)": (_KEY_ID, ()),
    "count_erased(text, text, bigint)": (_COUNT_ERASED, ()),
    "erase_matches(text, text, text[])": (_ERASE_MATCHES, (RECOVERY,)),
    "erasure_remains(text, text[])": (_ERASURE_REMAINS, (RECOVERY,)),
    "uncovered_rows(text, text[], integer)": (_UNREACHED, ()),
    "finish_erasure(text, text[], bigint, bigint, bigint)": (_FINISH_ERASURE, (RECOVERY,)),
    "consume_find_quota(integer)": (_SPEND_FIND, ()),
    "find_rows(text, text[], integer)": (_FIND_ROWS, (RECOVERY,)),
    "expire_quarantine(integer, integer)": (_EXPIRE, (RECOVERY,)),
    "withdraw_unmask(bigint)": (_WITHDRAW, (RECOVERY,)),
    "approve_unmask(bigint, integer)": (_APPROVE, (RECOVERY,)),
    "reveal_unmask(bigint)": (_REVEAL, (RECOVERY,)),
}

_COMMENTS = {
    "COLUMN login_ingest.unmask_policy.max_find_tokens": "Tokens in one find; a value has one"
    " under each enabled key.",
    "COLUMN login_ingest.unmask_policy.max_find_tokens_per_day": "Tokens that one person may look for"
    " on one day, UTC.",
    "TABLE login_ingest.find_usage": "How many tokens each person has looked for on each day.",
    "TABLE login_ingest.quarantine_policy": "One row: how long the quarantine is kept at least."
    " Only whoever migrates may change it.",
    "COLUMN login_ingest.unmask_request.withdrawn_by": "The session_user who withdrew it: it is"
    " closed for good.",
    "COLUMN login_ingest.erasure.matches": "What an unfinished upgrade from MD5 had noted.",
    "COLUMN login_ingest.erasure.remaining": "Things that the database found afterwards.",
    "COLUMN login_ingest.erasure.uncovered": "Rows, by the database, under keys of which fewer"
    " tokens were named than there are subjects.",
    "COLUMN login_ingest.erasure.sealed": "Messages in the quarantine at the end, by the database.",
    "COLUMN login_ingest.erasure.held": "Quarantined messages that still hold a subject: the"
    " command says so.",
    "COLUMN login_ingest.erasure.unopened": "Things that could not be looked into: the command"
    " says so; the database adds messages that the command has not seen.",
}


def upgrade() -> None:
    """Adds the limits and the columns, and replaces what believed its caller."""
    for statement in _TABLES:
        op.execute(statement)
    op.execute("DROP FUNCTION login_ingest.finish_erasure(text, bigint, bigint)")
    op.execute("DROP FUNCTION login_ingest.expire_quarantine(integer, integer)")
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for signature, (statement, callers) in _FUNCTIONS.items():
        _create_function(signature, statement.replace("{schema}", schema), callers)
    for thing, comment in _COMMENTS.items():
        text = comment.replace("'", "''")
        op.execute(f"COMMENT ON {thing} IS '{text}'")
    op.execute(f"ALTER TABLE login_ingest.find_usage OWNER TO {OWNER}")
    op.execute(
        "GRANT SELECT ON login_ingest.find_usage, login_ingest.quarantine_policy"
        f" TO {OWNER}, {RECOVERY}, {AUDITOR}"
    )


def _create_function(signature: str, statement: str, callers: tuple[str, ...]) -> None:
    op.execute(statement)
    op.execute(f"ALTER FUNCTION login_ingest.{signature} OWNER TO {OWNER}")
    op.execute(f"REVOKE ALL ON FUNCTION login_ingest.{signature} FROM PUBLIC")
    for role in callers:
        op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.{signature} TO {role}")
