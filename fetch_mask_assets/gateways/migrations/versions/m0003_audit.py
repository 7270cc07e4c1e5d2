"""The audit: append-only, each row bound to the one before by a hash."""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import AUDITOR, OWNER, RECOVERY

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_AUDIT = """
CREATE TABLE login_ingest.audit (
    audit_id      bigint      PRIMARY KEY,
    at            timestamptz NOT NULL,
    person        text        NOT NULL,
    action        text        NOT NULL,
    detail        text        NOT NULL,
    previous_hash bytea       NOT NULL,
    hash          bytea       NOT NULL
)
"""

_REFUSE_CHANGE = """
CREATE FUNCTION login_ingest.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'insufficient_privilege';
END $$
"""

_TRIGGER = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON login_ingest.audit
FOR EACH STATEMENT EXECUTE FUNCTION login_ingest.refuse_audit_change()
"""

# What is hashed, here and by whoever verifies: the hash before, then the fields, each ended by a
# line feed that none of them but the last can hold.
_HASH = """
CREATE FUNCTION login_ingest.audit_hash(
    previous_hash bytea, audit_id bigint, at timestamptz, person text, action text, detail text
) RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(previous_hash || convert_to(concat_ws(E'\\n', audit_id,
    to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), person, action, detail), 'UTF8'))
"""

# The person is the session's user, which nobody can set but a superuser. The lock makes rows
# follow one another, so that each has exactly one before it.
_RECORD = """
CREATE FUNCTION login_ingest.record_audit(action text, detail text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = login_ingest, pg_temp AS $$
DECLARE
    before login_ingest.audit;
    next_id bigint;
    moment timestamptz;
    before_hash bytea;
BEGIN
    PERFORM pg_advisory_xact_lock(7264016);
    SELECT * INTO before FROM login_ingest.audit ORDER BY audit_id DESC LIMIT 1;
    next_id := coalesce(before.audit_id, 0) + 1;
    before_hash := coalesce(before.hash, ''::bytea);
    moment := clock_timestamp();
    INSERT INTO login_ingest.audit VALUES (next_id, moment, session_user, action, detail,
        before_hash, login_ingest.audit_hash(
            before_hash, next_id, moment, session_user::text, action, detail));
    RETURN next_id;
END $$
"""


def upgrade() -> None:
    """Makes the audit, the function that alone writes it, and what refuses every change."""
    for statement in (_AUDIT, _REFUSE_CHANGE, _TRIGGER, _HASH, _RECORD):
        op.execute(statement)
    op.execute(f"ALTER TABLE login_ingest.audit OWNER TO {OWNER}")
    for function in (
        "refuse_audit_change()",
        "audit_hash(bytea, bigint, timestamptz, text, text, text)",
        "record_audit(text, text)",
    ):
        op.execute(f"ALTER FUNCTION login_ingest.{function} OWNER TO {OWNER}")
    op.execute("REVOKE ALL ON FUNCTION login_ingest.record_audit(text, text) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.record_audit(text, text) TO {RECOVERY}")
    op.execute(f"GRANT SELECT ON login_ingest.audit TO {AUDITOR}, {RECOVERY}")
