"""Turns: who must wait for whom, held by rows that no login without our grants can lock.

An advisory lock can be held by anybody who may connect. A turn is a row that is locked to the end
of the transaction; a lease lasts as long as a session. Whoever takes several turns takes them in
the order of their places, and `audit` last.
"""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import LOADER, OWNER, RECOVERY

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TURN = """
CREATE TABLE login_ingest.named_lock (
    name   text    PRIMARY KEY,
    place  integer NOT NULL UNIQUE,
    allowed_roles text[]  NOT NULL
)
"""

# By name, in the order of their places: the roles whose members may take the turn themselves.
_TURNS = {
    "md5_upgrade": (),
    "registry": (LOADER, RECOVERY),
    "links": (RECOVERY,),
    "audit": (),
}

_LEASE = """
CREATE TABLE login_ingest.lease (
    name     text        PRIMARY KEY REFERENCES login_ingest.named_lock,
    session_token   bigint      NOT NULL,
    pid      integer     NOT NULL,
    person   text        NOT NULL,
    taken_at timestamptz NOT NULL
)
"""

# For the functions of the schema only: these have asked already who calls them.
_WAIT_TURN = """
CREATE FUNCTION login_ingest.wait_for_lock(wanted text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM login_ingest.named_lock WHERE name = wanted FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such turn' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$
"""

_TAKE_TURN = """
CREATE FUNCTION login_ingest.acquire_lock(wanted text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM login_ingest.named_lock, unnest(allowed_roles) AS allowed_role
        WHERE name = wanted AND pg_has_role(session_user, allowed_role, 'MEMBER')
    ) THEN
        RAISE EXCEPTION 'not a turn of this person' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM login_ingest.wait_for_lock(wanted);
END $$
"""

# A lease lives while the session that took it holds an advisory lock on a number that was drawn
# for it: nobody can hold that number before, and held by another process it means nothing.
_TAKE_LEASE = """
CREATE FUNCTION login_ingest.acquire_lease(wanted text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    drawn bigint := ('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint;
BEGIN
    IF wanted <> 'md5_upgrade' THEN
        RAISE EXCEPTION 'not for a session' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM login_ingest.wait_for_lock(wanted);
    IF EXISTS (
        SELECT FROM login_ingest.lease JOIN pg_locks AS held USING (pid)
        WHERE name = wanted AND held.locktype = 'advisory' AND held.granted
          AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND held.objsubid = 1 AND (held.classid::bigint << 32 | held.objid::bigint) = session_token
    ) OR NOT pg_try_advisory_lock(drawn) THEN
        RETURN false;
    END IF;
    INSERT INTO login_ingest.lease (name, session_token, pid, person, taken_at)
    VALUES (wanted, drawn, pg_backend_pid(), session_user, clock_timestamp())
    ON CONFLICT (name) DO UPDATE
    SET session_token = excluded.session_token, pid = excluded.pid, person = excluded.person,
        taken_at = excluded.taken_at;
    RETURN true;
END $$
"""

# What took advisory locks, by the start of its body: `_wait_turns` changes that line alone.
_WAITING = {
    "record_audit(text, text)": ("pg_advisory_xact_lock(7264016)", "audit"),
    "link_tokens(text[], text[], text[])": ("pg_advisory_xact_lock(7264040)", "links"),
    "erase_links(text, text, text[])": ("pg_advisory_xact_lock(7264040)", "links"),
}

_CALLERS = {
    "wait_for_lock(text)": (),
    "acquire_lock(text)": (LOADER, RECOVERY),
    "acquire_lease(text)": (RECOVERY,),
}

_COMMENTS = {
    "TABLE login_ingest.named_lock": "One row for each thing that one transaction at a time may do: its"
    " row is locked until the transaction ends.",
    "COLUMN login_ingest.named_lock.place": "Whoever takes several takes them in this order.",
    "COLUMN login_ingest.named_lock.allowed_roles": "Roles whose members may take the turn by acquire_lock.",
    "TABLE login_ingest.lease": "What one session at a time may do, and which session that is.",
    "COLUMN login_ingest.lease.session_token": "The advisory lock that its session holds: a number drawn"
    " for this lease. Without it the lease is over.",
    "FUNCTION login_ingest.wait_for_lock(text)": "Waits for a turn; for the functions of this schema.",
    "FUNCTION login_ingest.acquire_lock(text)": "Waits for a turn, and has it until the transaction"
    " ends.",
    "FUNCTION login_ingest.acquire_lease(text)": "Whether the session now has the lease, until it"
    " ends.",
}


def upgrade() -> None:
    """Makes the turns and has every function that took an advisory lock take one instead."""
    for statement in (_TURN, _LEASE, _WAIT_TURN, _TAKE_TURN, _TAKE_LEASE):
        op.execute(statement)
    for place, (name, allowed_roles) in enumerate(_TURNS.items(), start=1):
        values = (name, place, list(allowed_roles))
        op.get_bind().exec_driver_sql(
            "INSERT INTO login_ingest.named_lock VALUES (%s, %s, %s)", values
        )
    for table in ("named_lock", "lease"):
        op.execute(f"ALTER TABLE login_ingest.{table} OWNER TO {OWNER}")
    for signature, callers in _CALLERS.items():
        op.execute(f"ALTER FUNCTION login_ingest.{signature} OWNER TO {OWNER}")
        op.execute(f"REVOKE ALL ON FUNCTION login_ingest.{signature} FROM PUBLIC")
        for role in callers:
            op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.{signature} TO {role}")
    for signature, (lock, turn) in _WAITING.items():
        _wait_turn(signature, lock, turn)
    for thing, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")


def _wait_turn(signature: str, lock: str, turn: str) -> None:
    """Has a function wait for a turn where it took an advisory lock; the rest stays as it is."""
    function = f"'login_ingest.{signature}'::regprocedure"
    found = op.get_bind().exec_driver_sql(f"SELECT pg_get_functiondef({function})")
    definition = str(found.scalar_one())
    if definition.count(lock) != 1:
        raise RuntimeError(f"login_ingest.{signature} is not the one that was migrated")
    op.get_bind().exec_driver_sql(
        definition.replace(lock, f"login_ingest.wait_for_lock('{turn}')").replace("%", "%%")
    )
