-- The audit: append-only, each row bound to the one before by a hash. Table and trigger belong to
-- the login that migrates: the owner of a table can disable its triggers. The owner of the
-- functions may only append, and read the row before.

CREATE TABLE login_ingest.audit (
    audit_id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    person text NOT NULL,
    action text NOT NULL,
    detail text NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT one_line CHECK (strpos(person, E'\n') = 0 AND strpos(action, E'\n') = 0)
);
GRANT SELECT, INSERT ON login_ingest.audit TO login_ingest_owner;
GRANT SELECT ON login_ingest.audit TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON TABLE login_ingest.audit IS
'Every act on tokens, keys, links and quarantined messages, in order. Never changed.';
COMMENT ON COLUMN login_ingest.audit.audit_id IS '1, 2, 3 and so on, without gaps.';
COMMENT ON COLUMN login_ingest.audit.person IS 'The session_user who acted.';
COMMENT ON COLUMN login_ingest.audit.detail IS
'JSON. Counts, key ids, reasons; of tokens only SHA-256 digests.';
COMMENT ON COLUMN login_ingest.audit.previous_hash IS
'The hash of the row before; empty in the first row.';
COMMENT ON COLUMN login_ingest.audit.hash IS 'audit_hash of the columns before it.';
COMMENT ON CONSTRAINT one_line ON login_ingest.audit IS
'A line feed ends each part of what is hashed.';

CREATE FUNCTION login_ingest.refuse_audit_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
COMMENT ON FUNCTION login_ingest.refuse_audit_change IS 'Refuses every change of the audit.';

CREATE TRIGGER append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON login_ingest.audit
FOR EACH STATEMENT EXECUTE FUNCTION login_ingest.refuse_audit_change();

SET ROLE login_ingest_owner;

-- The hash before, then the fields, each ended by a line feed that none of them but the last can
-- hold.
CREATE FUNCTION login_ingest.audit_hash(
    previous_hash bytea, audit_id bigint, at timestamptz, person text, action text, detail text
) RETURNS bytea
LANGUAGE sql STABLE
RETURN sha256(previous_hash || convert_to(concat_ws(
    E'\n',
    audit_id,
    to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
    person,
    action,
    detail
), 'UTF8'));
GRANT EXECUTE ON FUNCTION login_ingest.audit_hash TO PUBLIC;
COMMENT ON FUNCTION login_ingest.audit_hash IS
'The hash of a row of the audit, for its writer and for those who verify it.';

-- The person is the session's user, which only a superuser can set. The turn makes rows follow one
-- another, so that each has exactly one before it.
CREATE FUNCTION login_ingest.record_audit(action text, detail text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = login_ingest, pg_temp
AS $$
DECLARE
    before login_ingest.audit;
    next_id bigint;
    moment timestamptz;
    before_hash bytea;
BEGIN
    PERFORM login_ingest.wait_for_lock('audit');
    SELECT * INTO before FROM login_ingest.audit ORDER BY audit_id DESC LIMIT 1;
    next_id := coalesce(before.audit_id, 0) + 1;
    before_hash := coalesce(before.hash, ''::bytea);
    moment := clock_timestamp();
    INSERT INTO login_ingest.audit VALUES (next_id, moment, session_user, action, detail,
        before_hash, login_ingest.audit_hash(
            before_hash, next_id, moment, session_user::text, action, detail));
    RETURN next_id;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.record_audit TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.record_audit IS
'Appends a row to the audit in the name of the session_user, and gives its audit_id.';

RESET ROLE;
