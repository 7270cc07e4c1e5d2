"""Requests to unmask, approvals and reveals, each decided and recorded by the database."""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import AUDITOR, OWNER, RECOVERY

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A limit in the environment of whoever asks would be no limit: this one is the database's.
_POLICY = """
CREATE TABLE login_ingest.unmask_policy (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    max_tokens  integer NOT NULL DEFAULT 100 CHECK (max_tokens > 0),
    max_minutes integer NOT NULL DEFAULT 480 CHECK (max_minutes > 0)
)
"""

_REQUEST = """
CREATE TABLE login_ingest.unmask_request (
    request_id   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    requester    text        NOT NULL,
    reason       text        NOT NULL,
    ticket       text        NOT NULL,
    tokens       text[]      NOT NULL,
    approver     text,
    approved_at  timestamptz,
    expires_at   timestamptz,
    CONSTRAINT second_person CHECK (approver <> requester),
    CONSTRAINT whole_approval CHECK (num_nulls(approver, approved_at, expires_at) IN (0, 3))
)
"""

# Membership that is inherited counts too; a login that is gone is nobody's.
_IS_RECOVERY = f"""
CREATE FUNCTION login_ingest.is_recovery(person text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = login_ingest, pg_temp
RETURN EXISTS (
    SELECT FROM pg_roles WHERE rolname = person AND pg_has_role(oid, '{RECOVERY}', 'MEMBER')
)
"""

# One line of text that says something.
_IS_SAID = r"""
CREATE FUNCTION login_ingest.is_valid_text(words text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = login_ingest, pg_temp
RETURN coalesce(words ~ '\S' AND words !~ '[[:cntrl:]]' AND length(words) <= 500, false)
"""

# What the audit keeps of tokens: enough to ask of one whether it was there, and too little to give
# an original back after it was erased, for the audit is never changed.
_DIGESTS = """
CREATE FUNCTION login_ingest.token_digests(tokens text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = login_ingest, pg_temp
RETURN (
    SELECT jsonb_agg(encode(sha256(convert_to(token, 'UTF8')), 'hex') ORDER BY place)
    FROM unnest(tokens) WITH ORDINALITY AS named (token, place)
)
"""

# Each function gives its verdict and never raises one: the refusal is committed with its record.
# What is no token is counted and not kept, since it may be a raw value.
_ASK = r"""
CREATE FUNCTION login_ingest.request_unmask(
    wanted text[], reason_given text, ticket_given text, at_most integer,
    OUT verdict text, OUT request bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = login_ingest, pg_temp AS $$
DECLARE
    asked integer := coalesce(cardinality(wanted), 0);
    highest integer;
BEGIN
    SELECT least(max_tokens, at_most) INTO STRICT highest FROM unmask_policy;
    verdict := CASE
        WHEN asked > highest THEN 'limit_exceeded'
        WHEN asked = 0 OR EXISTS (
            SELECT FROM unnest(wanted) AS token
            WHERE (token ~ '^(ip:[A-Za-z0-9_-]{50}|device_id:[A-Za-z0-9_-]{50,246})$') IS NOT TRUE
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
END $$
"""

_APPROVE = """
CREATE FUNCTION login_ingest.approve_unmask(
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
CREATE FUNCTION login_ingest.reveal_unmask(wanted bigint, OUT verdict text, OUT tokens text[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = login_ingest, pg_temp AS $$
DECLARE
    asked unmask_request;
    highest integer;
BEGIN
    SELECT max_tokens INTO STRICT highest FROM unmask_policy;
    SELECT * INTO asked FROM unmask_request WHERE request_id = wanted FOR UPDATE;
    verdict := CASE
        WHEN asked.request_id IS NULL THEN 'unknown_request'
        WHEN asked.requester <> session_user THEN 'not_the_requester'
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

_INTERNAL = ("is_recovery(text)", "is_valid_text(text)", "token_digests(text[])")
_CALLED = (
    "request_unmask(text[], text, text, integer)",
    "approve_unmask(bigint, integer)",
    "reveal_unmask(bigint)",
)


_COMMENTS = {
    "TABLE login_ingest.unmask_policy": "One row: the limits of unmasking. Only whoever migrates"
    " may change them.",
    "COLUMN login_ingest.unmask_policy.max_tokens": "Tokens in one request.",
    "COLUMN login_ingest.unmask_policy.max_minutes": "Minutes for which an approval lasts.",
    "TABLE login_ingest.unmask_request": "Who asked for the originals of which tokens, and who"
    " approved it until when. Written by three functions only.",
    "COLUMN login_ingest.unmask_request.tokens": "What was asked for, without what was"
    " erased since. The audit has their SHA-256 digests.",
    "COLUMN login_ingest.unmask_request.requester": "The session_user who asked.",
    "COLUMN login_ingest.unmask_request.approver": "The session_user who approved last.",
    "CONSTRAINT second_person ON login_ingest.unmask_request": "Nobody approves their own request.",
}


def upgrade() -> None:
    """Makes the requests, the functions that alone write them, and the limits."""
    for statement in (_POLICY, _REQUEST, _IS_RECOVERY, _IS_SAID, _DIGESTS, _ASK, _APPROVE, _REVEAL):
        op.execute(statement)
    op.execute("INSERT INTO login_ingest.unmask_policy DEFAULT VALUES")
    op.execute(f"ALTER TABLE login_ingest.unmask_request OWNER TO {OWNER}")
    for function in (*_INTERNAL, *_CALLED):
        op.execute(f"ALTER FUNCTION login_ingest.{function} OWNER TO {OWNER}")
        op.execute(f"REVOKE ALL ON FUNCTION login_ingest.{function} FROM PUBLIC")
    for function in _CALLED:
        op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.{function} TO {RECOVERY}")
    op.execute(f"GRANT SELECT ON login_ingest.unmask_request TO {RECOVERY}, {AUDITOR}")
    op.execute(f"GRANT SELECT ON login_ingest.unmask_policy TO {OWNER}, {RECOVERY}, {AUDITOR}")
    for thing, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")
    _take_audit_from_owner()


def _take_audit_from_owner() -> None:
    """Leaves the owner only what its functions do: to append, and to read the row before.

    Whoever owns a table can disable its triggers, and whoever owns a schema can drop its tables.
    """
    op.execute(
        "ALTER TABLE login_ingest.audit ADD CONSTRAINT one_line"
        " CHECK (strpos(person, E'\\n') = 0 AND strpos(action, E'\\n') = 0)"
    )
    op.execute("ALTER SCHEMA login_ingest OWNER TO CURRENT_USER")
    op.execute(f"GRANT USAGE, CREATE ON SCHEMA login_ingest TO {OWNER}")
    op.execute("ALTER TABLE login_ingest.audit OWNER TO CURRENT_USER")
    op.execute("ALTER FUNCTION login_ingest.refuse_audit_change() OWNER TO CURRENT_USER")
    op.execute(f"GRANT SELECT, INSERT ON login_ingest.audit TO {OWNER}")
