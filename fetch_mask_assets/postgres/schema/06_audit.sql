-- The audit: append-only, each row chained to the previous row by a hash. Table and trigger belong
-- to the login that migrates, because the owner of a table can disable its triggers.
-- login_ingest_owner can only read and append.

CREATE TABLE login_ingest.audit (
    audit_id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    detail text NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT no_line_feed CHECK (strpos(actor, E'\n') = 0 AND strpos(action, E'\n') = 0)
);
GRANT SELECT, INSERT ON login_ingest.audit TO login_ingest_owner;
GRANT SELECT ON login_ingest.audit TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.audit IS
'Operations on tokens, keys, links and quarantined messages, in order. Append-only.';
COMMENT ON COLUMN login_ingest.audit.audit_id IS 'Consecutive from 1, without gaps.';
COMMENT ON COLUMN login_ingest.audit.actor IS 'session_user of the operation.';
COMMENT ON COLUMN login_ingest.audit.action IS
'Operation and step, such as keys.rotate.';
COMMENT ON COLUMN login_ingest.audit.detail IS
'JSON: counts, key ids, reasons. Tokens only as SHA-256 digests.';
COMMENT ON COLUMN login_ingest.audit.previous_hash IS
'hash of the previous row. Empty in the first row.';
COMMENT ON COLUMN login_ingest.audit.hash IS 'audit_hash of the other columns.';
COMMENT ON CONSTRAINT no_line_feed ON login_ingest.audit IS
'A line feed separates the columns in the text that is hashed.';

CREATE FUNCTION login_ingest.refuse_audit_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
COMMENT ON FUNCTION login_ingest.refuse_audit_change IS
'Raises an error for UPDATE, DELETE and TRUNCATE.';

CREATE TRIGGER append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON login_ingest.audit
FOR EACH STATEMENT EXECUTE FUNCTION login_ingest.refuse_audit_change();

SET ROLE login_ingest_owner;

-- The previous hash and the columns, separated by line feeds. Only the last column can contain one.
CREATE FUNCTION login_ingest.audit_hash(
    p_previous_hash bytea,
    p_audit_id bigint,
    p_at timestamptz,
    p_actor text,
    p_action text,
    p_detail text
) RETURNS bytea
LANGUAGE sql STABLE
RETURN sha256(p_previous_hash || convert_to(concat_ws(
    E'\n',
    p_audit_id,
    to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
    p_actor,
    p_action,
    p_detail
), 'UTF8'));
GRANT EXECUTE ON FUNCTION login_ingest.audit_hash TO PUBLIC;
COMMENT ON FUNCTION login_ingest.audit_hash IS
'Returns the hash of a row of the audit.';

-- Only a superuser can set session_user. The lock makes rows consecutive.
CREATE FUNCTION login_ingest.record_audit(p_action text, p_detail text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = login_ingest, pg_temp
AS $$
DECLARE
    previous login_ingest.audit;
    next_id bigint;
    next_at timestamptz;
    last_hash bytea;
BEGIN
    PERFORM login_ingest.wait_for_lock('audit');
    SELECT * INTO previous FROM login_ingest.audit ORDER BY audit_id DESC LIMIT 1;
    next_id := coalesce(previous.audit_id, 0) + 1;
    last_hash := coalesce(previous.hash, ''::bytea);
    next_at := clock_timestamp();
    INSERT INTO login_ingest.audit VALUES (next_id, next_at, session_user, p_action, p_detail,
        last_hash, login_ingest.audit_hash(
            last_hash, next_id, next_at, session_user::text, p_action, p_detail));
    RETURN next_id;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.record_audit TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.record_audit IS
'Appends a row to the audit with session_user as its actor. Returns its audit_id.';

RESET ROLE;
