"""Roles: who may do what, and an owner that cannot log in."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OWNER = "login_ingest_owner"
LOADER = "login_ingest_loader"
ANALYST = "login_ingest_analyst"
RECOVERY = "login_ingest_recovery"
AUDITOR = "login_ingest_auditor"

# Roles belong to the server, and another database of it may have made them.
_CREATE_ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        CREATE ROLE {role} NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""

# Word for word the predicate of the index user_logins_untokened, which answers it.
_UNTOKENED_ROWS = r"""
CREATE FUNCTION login_ingest.rows_without_tokens() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp
RETURN (
    SELECT count(*) FROM user_logins
    WHERE masked_ip !~ '^ip:[A-Za-z0-9_-]{{50}}$'
       OR masked_device_id !~ '^device_id:[A-Za-z0-9_-]{{50,}}$'
)
"""

_TABLES = ("batch", "ledger", "quarantine", "masking_key", "schema_version")

_WITHOUT_BODY = "message_id, batch_id, reason, field, sent_at, receive_count, quarantined_at"

# The loader inserts, and reads of what it wrote only ids and counts: never a token, never a body.
_GRANTS = (
    f"GRANT USAGE ON SCHEMA login_ingest TO {LOADER}, {ANALYST}, {RECOVERY}, {AUDITOR}",
    f"GRANT SELECT ON login_ingest.schema_version TO {LOADER}, {RECOVERY}, {AUDITOR}",
    f"GRANT INSERT ON user_logins TO {LOADER}",
    f"GRANT SELECT, INSERT ON login_ingest.batch TO {LOADER}",
    f"GRANT USAGE ON SEQUENCE login_ingest.batch_batch_id_seq TO {LOADER}",
    f"GRANT INSERT, SELECT (message_id, batch_id) ON login_ingest.ledger TO {LOADER}",
    f"GRANT INSERT, SELECT (message_id, batch_id) ON login_ingest.quarantine TO {LOADER}",
    f"GRANT SELECT, INSERT ON login_ingest.masking_key TO {LOADER}, {RECOVERY}",
    f"GRANT UPDATE (retired_at) ON login_ingest.masking_key TO {RECOVERY}",
    f"GRANT SELECT ON user_logins TO {ANALYST}",
    f"GRANT SELECT, UPDATE (masked_ip, masked_device_id) ON user_logins TO {RECOVERY}",
    f"GRANT SELECT ON login_ingest.batch, login_ingest.ledger TO {RECOVERY}, {AUDITOR}",
    f"GRANT SELECT ON login_ingest.quarantine TO {RECOVERY}",
    f"GRANT SELECT ({_WITHOUT_BODY}) ON login_ingest.quarantine TO {AUDITOR}",
    f"GRANT SELECT ON login_ingest.masking_key TO {AUDITOR}",
)


def upgrade() -> None:
    """Makes the roles, hands the schema to its owner, and grants."""
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for role in (OWNER, LOADER, ANALYST, RECOVERY, AUDITOR):
        op.execute(_CREATE_ROLE.format(role=role))
    op.execute(f"GRANT {OWNER} TO CURRENT_USER")
    op.execute("ALTER TABLE login_ingest.masking_key ADD COLUMN retired_at timestamptz")
    op.execute(_UNTOKENED_ROWS.format(schema=schema))
    op.execute("REVOKE ALL ON FUNCTION login_ingest.rows_without_tokens() FROM PUBLIC")
    op.execute(
        f"GRANT EXECUTE ON FUNCTION login_ingest.rows_without_tokens() TO {LOADER}, {AUDITOR}"
    )
    for statement in _GRANTS:
        op.execute(statement)
    op.execute(f"GRANT SELECT, UPDATE, DELETE ON user_logins TO {OWNER}")
    _hand_over()


def _hand_over() -> None:
    op.execute(f"GRANT USAGE, CREATE ON SCHEMA login_ingest TO {OWNER}")
    for table in _TABLES:
        op.execute(f"ALTER TABLE login_ingest.{table} OWNER TO {OWNER}")
    op.execute(f"ALTER FUNCTION login_ingest.rows_without_tokens() OWNER TO {OWNER}")
    op.execute(f"ALTER SCHEMA login_ingest OWNER TO {OWNER}")
