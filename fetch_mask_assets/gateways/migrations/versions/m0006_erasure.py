"""Erasure, with certificates, and what the quarantine needs: replay, discard, expiry, account.

Each function that takes something away records it in the audit itself, so that both are one
transaction, and names every table with its schema, so that no search path can lead it elsewhere.
"""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import (
    AUDITOR,
    LOADER,
    OWNER,
    RECOVERY,
)

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_REPLAY = """
CREATE TABLE login_ingest.replay (
    replay_id      text        PRIMARY KEY,
    at             timestamptz NOT NULL DEFAULT now(),
    person         text        NOT NULL DEFAULT session_user,
    replayed       bigint      NOT NULL CHECK (replayed >= 0),
    still_rejected bigint      NOT NULL CHECK (still_rejected >= 0)
)
"""

_DISCARD = """
CREATE TABLE login_ingest.discard (
    discard_id text        PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    person     text        NOT NULL DEFAULT session_user,
    action     text        NOT NULL CHECK (action IN ('discard', 'expire')),
    why        text        NOT NULL CHECK (why <> ''),
    messages   bigint      NOT NULL CHECK (messages >= 0)
)
"""

_ERASURE = """
CREATE TABLE login_ingest.erasure (
    erasure_id  text        PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    person      text        NOT NULL DEFAULT session_user,
    kind        text        NOT NULL CHECK (kind IN ('ip', 'device_id', 'user')),
    subjects    integer     NOT NULL CHECK (subjects > 0),
    reason      text        NOT NULL CHECK (reason <> ''),
    ticket      text        NOT NULL CHECK (ticket <> ''),
    logins      bigint      NOT NULL DEFAULT 0,
    links       bigint      NOT NULL DEFAULT 0,
    requests    bigint      NOT NULL DEFAULT 0,
    quarantined bigint      NOT NULL DEFAULT 0,
    unopened    bigint      NOT NULL DEFAULT 0,
    remaining   bigint,
    finished_at timestamptz,
    verified    boolean     NOT NULL DEFAULT false,
    CONSTRAINT verified_is_clean
        CHECK (NOT verified OR (finished_at IS NOT NULL AND remaining = 0 AND unopened = 0))
)
"""

_ACCOUNT = """
CREATE VIEW login_ingest.quarantine_balance AS
SELECT quarantined, replayed, discarded, expired, erased, waiting,
       quarantined = replayed + discarded + expired + erased + waiting AS holds
FROM (SELECT
    (SELECT coalesce(sum(quarantined), 0)::bigint FROM login_ingest.batch) AS quarantined,
    (SELECT coalesce(sum(replayed), 0)::bigint FROM login_ingest.replay) AS replayed,
    (SELECT coalesce(sum(messages) FILTER (WHERE action = 'discard'), 0)::bigint
     FROM login_ingest.discard) AS discarded,
    (SELECT coalesce(sum(messages) FILTER (WHERE action = 'expire'), 0)::bigint
     FROM login_ingest.discard) AS expired,
    (SELECT coalesce(sum(quarantined), 0)::bigint FROM login_ingest.erasure) AS erased,
    (SELECT count(*) FROM login_ingest.quarantine) AS waiting
) AS counts
"""

_TAKE = """
CREATE FUNCTION login_ingest.take_quarantined(
    after text, chosen text[], only_reason text, at_most integer
) RETURNS TABLE (message_id text, sent_at timestamptz, receive_count integer, sealed_body bytea)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT q.message_id, q.sent_at, q.receive_count, q.sealed_body
    FROM login_ingest.quarantine q
    WHERE q.message_id > after
      AND (chosen IS NULL OR q.message_id = ANY (chosen))
      AND (only_reason IS NULL OR q.reason = only_reason)
    ORDER BY q.message_id
    LIMIT at_most
    FOR UPDATE SKIP LOCKED
$$
"""

# The delete decides: a message that another replay took first is not there, and loads no second
# time. A row that the table refuses takes its delete back with it.
_REPLAY_MESSAGES = """
CREATE FUNCTION login_ingest.replay_messages(
    p_replay text, logins jsonb, rejections jsonb, unopened integer
) RETURNS TABLE (replayed_now bigint, rejected_now bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    login record;
    written bigint;
BEGIN
    replayed_now := 0;
    UPDATE login_ingest.quarantine q SET reason = r.reason, field = r.field
    FROM jsonb_to_recordset(rejections) AS r (message_id text, reason text, field text)
    WHERE q.message_id = r.message_id;
    GET DIAGNOSTICS rejected_now = ROW_COUNT;
    rejected_now := rejected_now + unopened;
    FOR login IN SELECT * FROM jsonb_to_recordset(logins) AS l (
        message_id text, user_id text, device_type text, masked_ip text, masked_device_id text,
        locale text, app_version integer, create_date date, app_version_text text) LOOP
        BEGIN
            DELETE FROM login_ingest.quarantine WHERE message_id = login.message_id;
            CONTINUE WHEN NOT FOUND;
            INSERT INTO {schema}.user_logins (user_id, device_type, masked_ip, masked_device_id,
                                              locale, app_version, create_date)
            VALUES (login.user_id, login.device_type, login.masked_ip, login.masked_device_id,
                    login.locale, login.app_version, login.create_date);
            GET DIAGNOSTICS written = ROW_COUNT;
            IF written <> 1 THEN
                RAISE EXCEPTION 'user_logins drops rows silently'
                USING ERRCODE = 'triggered_action_exception';
            END IF;
            UPDATE login_ingest.ledger SET app_version = login.app_version_text
            WHERE message_id = login.message_id;
            replayed_now := replayed_now + 1;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
            UPDATE login_ingest.quarantine SET reason = 'refused_by_database', field = NULL
            WHERE message_id = login.message_id;
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
END $$
"""

_DISCARD_MESSAGES = """
CREATE FUNCTION login_ingest.discard_messages(
    p_discard text, chosen text[], only_reason text, p_reason text, at_most integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$
"""

_EXPIRE = """
CREATE FUNCTION login_ingest.expire_quarantine(keep_days integer, at_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    IF keep_days IS NULL OR keep_days < 1 THEN
        RAISE EXCEPTION 'less than a day' USING ERRCODE = 'invalid_parameter_value';
    END IF;
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
            'keep_days', keep_days, 'messages', gone)::text);
    END IF;
    RETURN gone;
END $$
"""

_BEGIN_ERASURE = """
CREATE FUNCTION login_ingest.begin_erasure(
    p_erasure text, p_kind text, p_subjects integer, p_reason text, p_ticket text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO login_ingest.erasure (erasure_id, kind, subjects, reason, ticket)
    VALUES (p_erasure, p_kind, p_subjects, p_reason, p_ticket)
    ON CONFLICT (erasure_id) DO NOTHING;
    IF FOUND THEN
        PERFORM login_ingest.record_audit('erase.begin', json_build_object(
            'erasure_id', p_erasure, 'kind', p_kind, 'subjects', p_subjects,
            'reason', p_reason, 'ticket', p_ticket)::text);
    END IF;
END $$
"""

# Only for the functions below: what was erased goes into the certificate and into the audit.
_COUNT_ERASED = """
CREATE FUNCTION login_ingest.count_erased(p_erasure text, p_place text, gone bigint)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE login_ingest.erasure SET
        logins = logins + CASE p_place WHEN 'logins' THEN gone ELSE 0 END,
        links = links + CASE p_place WHEN 'links' THEN gone ELSE 0 END,
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

# Rows that still hold a token of a key that is gone are found by its links.
_ERASABLE_TOKENS = """
CREATE FUNCTION login_ingest.linked_tokens(p_field text, given text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_tokens text[];
BEGIN
    WITH RECURSIVE known (token) AS (
        SELECT unnest(given)
        UNION
        SELECT CASE WHEN link.old_token = known.token THEN link.new_token ELSE link.old_token END
        FROM known JOIN login_ingest.token_link link
          ON link.field = p_field AND known.token IN (link.old_token, link.new_token)
    )
    SELECT array_agg(token ORDER BY token) INTO found_tokens FROM known;
    RETURN found_tokens;
END $$
"""

_ERASE_TOKENS = """
CREATE FUNCTION login_ingest.erase_tokens(
    p_erasure text, p_field text, tokens text[], at_most integer
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    IF p_field = 'ip' THEN
        WITH picked AS (
            SELECT tableoid AS part, ctid AS place FROM {schema}.user_logins
            WHERE masked_ip = ANY (tokens) LIMIT at_most FOR UPDATE
        )
        UPDATE {schema}.user_logins u SET masked_ip = NULL FROM picked
        WHERE u.tableoid = picked.part AND u.ctid = picked.place AND masked_ip = ANY (tokens);
    ELSE
        WITH picked AS (
            SELECT tableoid AS part, ctid AS place FROM {schema}.user_logins
            WHERE masked_device_id = ANY (tokens) LIMIT at_most FOR UPDATE
        )
        UPDATE {schema}.user_logins u SET masked_device_id = NULL FROM picked
        WHERE u.tableoid = picked.part AND u.ctid = picked.place
          AND masked_device_id = ANY (tokens);
    END IF;
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'logins', gone);
    RETURN gone;
END $$
"""

_ERASE_USERS = """
CREATE FUNCTION login_ingest.erase_users(p_erasure text, users text[], at_most integer)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    WITH picked AS (
        SELECT tableoid AS part, ctid AS place FROM {schema}.user_logins
        WHERE user_id = ANY (users) LIMIT at_most FOR UPDATE
    )
    DELETE FROM {schema}.user_logins u USING picked
    WHERE u.tableoid = picked.part AND u.ctid = picked.place AND user_id = ANY (users);
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'logins', gone);
    RETURN gone;
END $$
"""

_ERASE_LINKS = """
CREATE FUNCTION login_ingest.erase_links(p_erasure text, p_field text, tokens text[])
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    -- The lock that whoever writes links holds: one that is not committed yet must not survive.
    PERFORM pg_advisory_xact_lock(7264040);
    DELETE FROM login_ingest.token_link
    WHERE field = p_field AND (old_token = ANY (tokens) OR new_token = ANY (tokens));
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'links', gone);
    -- What an unfinished upgrade from MD5 has found would bring the token back.
    DELETE FROM login_ingest.md5_match
    WHERE field = p_field AND (new_token = ANY (tokens) OR digest = ANY (tokens));
    RETURN gone;
END $$
"""

# A request keeps its person, reason and approval, and the tokens of other values.
_ERASE_REQUESTS = """
CREATE FUNCTION login_ingest.erase_requests(p_erasure text, erased text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    UPDATE login_ingest.unmask_request
    SET tokens = ARRAY(SELECT token FROM unnest(tokens) AS token WHERE token <> ALL (erased))
    WHERE tokens && erased;
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'requests', gone);
    RETURN gone;
END $$
"""

_ERASE_QUARANTINED = """
CREATE FUNCTION login_ingest.erase_quarantined(p_erasure text, message_ids text[])
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM login_ingest.quarantine WHERE message_id = ANY (message_ids);
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.count_erased(p_erasure, 'quarantined', gone);
    RETURN gone;
END $$
"""

_ERASURE_REMAINS = """
CREATE FUNCTION login_ingest.erasure_remains(p_kind text, subjects text[]) RETURNS bigint
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
         + (SELECT count(*) FROM login_ingest.unmask_request WHERE tokens && subjects);
END $$
"""

_FINISH_ERASURE = """
CREATE FUNCTION login_ingest.finish_erasure(
    p_erasure text, still_there bigint, not_opened bigint
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    done login_ingest.erasure;
BEGIN
    UPDATE login_ingest.erasure
    SET remaining = still_there, unopened = not_opened, finished_at = clock_timestamp(),
        verified = still_there = 0 AND not_opened = 0
    WHERE erasure_id = p_erasure AND person = session_user AND finished_at IS NULL
    RETURNING * INTO done;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM login_ingest.record_audit('erase.finish', json_build_object(
        'erasure_id', p_erasure, 'logins', done.logins, 'links', done.links,
        'requests', done.requests,
        'quarantined', done.quarantined, 'unopened', done.unopened,
        'remaining', done.remaining, 'verified', done.verified)::text);
    RETURN done.verified;
END $$
"""

_FUNCTIONS = {
    "take_quarantined(text, text[], text, integer)": (_TAKE, (RECOVERY,)),
    "replay_messages(text, jsonb, jsonb, integer)": (_REPLAY_MESSAGES, (RECOVERY,)),
    "discard_messages(text, text[], text, text, integer)": (_DISCARD_MESSAGES, (RECOVERY,)),
    "expire_quarantine(integer, integer)": (_EXPIRE, (RECOVERY,)),
    "begin_erasure(text, text, integer, text, text)": (_BEGIN_ERASURE, (RECOVERY,)),
    "count_erased(text, text, bigint)": (_COUNT_ERASED, ()),
    "linked_tokens(text, text[])": (_ERASABLE_TOKENS, (RECOVERY,)),
    "erase_tokens(text, text, text[], integer)": (_ERASE_TOKENS, (RECOVERY,)),
    "erase_users(text, text[], integer)": (_ERASE_USERS, (RECOVERY,)),
    "erase_links(text, text, text[])": (_ERASE_LINKS, (RECOVERY,)),
    "erase_requests(text, text[])": (_ERASE_REQUESTS, (RECOVERY,)),
    "erase_quarantined(text, text[])": (_ERASE_QUARANTINED, (RECOVERY,)),
    "erasure_remains(text, text[])": (_ERASURE_REMAINS, (RECOVERY,)),
    "finish_erasure(text, bigint, bigint)": (_FINISH_ERASURE, (RECOVERY,)),
}

_COMMENTS = {
    "TABLE login_ingest.replay": "One row for each replay: what became a login, what did not.",
    "TABLE login_ingest.discard": "Quarantined messages that were discarded, or that expired.",
    "TABLE login_ingest.erasure": "Certificates of erasure; nothing that identifies what went.",
    "VIEW login_ingest.quarantine_balance": "What became of all that was ever quarantined.",
}


def upgrade() -> None:
    """Makes the tables, the account, and the functions that alone take something away."""
    for statement in (_REPLAY, _DISCARD, _ERASURE, _ACCOUNT):
        op.execute(statement)
    op.execute("CREATE INDEX quarantine_quarantined_at ON login_ingest.quarantine (quarantined_at)")
    for thing, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")
    op.execute(f"GRANT INSERT ON user_logins TO {OWNER}")
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    op.execute(f"GRANT USAGE ON SCHEMA {schema} TO {OWNER}")
    for signature, (statement, callers) in _FUNCTIONS.items():
        _create_function(signature, statement.replace("{schema}", schema), callers)
    for table in ("replay", "discard", "erasure", "quarantine_balance"):
        op.execute(f"ALTER TABLE login_ingest.{table} OWNER TO {OWNER}")
        op.execute(f"GRANT SELECT ON login_ingest.{table} TO {RECOVERY}, {AUDITOR}")
    op.execute(f"GRANT SELECT ON login_ingest.quarantine_balance TO {LOADER}")


def _create_function(signature: str, statement: str, callers: tuple[str, ...]) -> None:
    op.execute(statement)
    op.execute(f"ALTER FUNCTION login_ingest.{signature} OWNER TO {OWNER}")
    op.execute(f"REVOKE ALL ON FUNCTION login_ingest.{signature} FROM PUBLIC")
    for role in callers:
        op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.{signature} TO {role}")
