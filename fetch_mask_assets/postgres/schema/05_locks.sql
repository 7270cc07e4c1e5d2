-- Who must wait for whom. Anybody who may connect can hold an advisory lock; a turn is a row that
-- no login without our grants can lock.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.named_lock (
    name text PRIMARY KEY,
    place integer NOT NULL UNIQUE,
    allowed_roles text[] NOT NULL
);
COMMENT ON TABLE login_ingest.named_lock IS
'One row for each thing that one transaction at a time may do: its row is locked until the '
'transaction ends.';
COMMENT ON COLUMN login_ingest.named_lock.place IS 'Whoever takes several takes them in this order.';
COMMENT ON COLUMN login_ingest.named_lock.allowed_roles IS 'Roles whose members may take the turn by acquire_lock.';

INSERT INTO login_ingest.named_lock (name, place, allowed_roles) VALUES
('md5_upgrade', 1, '{}'),
('registry', 2, '{login_ingest_loader,login_ingest_recovery}'),
('links', 3, '{login_ingest_recovery}'),
('audit', 4, '{}');

CREATE TABLE login_ingest.lease (
    name text PRIMARY KEY REFERENCES login_ingest.named_lock,
    session_token bigint NOT NULL,
    pid integer NOT NULL,
    person text NOT NULL,
    taken_at timestamptz NOT NULL
);
COMMENT ON TABLE login_ingest.lease IS
'What one session at a time may do, and which session that is.';
COMMENT ON COLUMN login_ingest.lease.session_token IS
'The advisory lock that its session holds: a number drawn for this lease. Without it the lease is '
'over.';
COMMENT ON COLUMN login_ingest.lease.pid IS 'The process of the server that serves the session.';

-- For the functions of the schema only: these have asked already who calls them.
CREATE FUNCTION login_ingest.wait_for_lock(wanted text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM login_ingest.named_lock WHERE name = wanted FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such turn' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;
COMMENT ON FUNCTION login_ingest.wait_for_lock IS 'Waits for a turn; for the functions of this schema.';

CREATE FUNCTION login_ingest.acquire_lock(wanted text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM login_ingest.named_lock, unnest(allowed_roles) AS allowed_role
        WHERE name = wanted AND pg_has_role(session_user, allowed_role, 'MEMBER')
    ) THEN
        RAISE EXCEPTION 'not a turn of this person' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM login_ingest.wait_for_lock(wanted);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.acquire_lock TO login_ingest_loader, login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.acquire_lock IS
'Waits for a turn, and has it until the transaction ends.';

-- A lease lives while the session that took it holds an advisory lock on a number that was drawn
-- for it: nobody can hold that number before, and held by another process it means nothing.
CREATE FUNCTION login_ingest.acquire_lease(wanted text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
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
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.acquire_lease TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.acquire_lease IS
'Whether the session now has the lease, until it ends.';

RESET ROLE;
