-- Named locks. Any login that can connect can take an advisory lock, so a lock is a row that only
-- functions of this schema can lock.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.named_lock (
    name text PRIMARY KEY,
    lock_order integer NOT NULL UNIQUE,
    allowed_roles text[] NOT NULL
);
COMMENT ON TABLE login_ingest.named_lock IS
'Locks, each held by one transaction at a time: its row is locked until the transaction ends.';
COMMENT ON COLUMN login_ingest.named_lock.lock_order IS
'A transaction that acquires several locks acquires them in this order.';
COMMENT ON COLUMN login_ingest.named_lock.allowed_roles IS
'Roles whose members can call acquire_lock for this lock.';

INSERT INTO login_ingest.named_lock (name, lock_order, allowed_roles) VALUES
('md5_upgrade', 1, '{}'),
('registry', 2, '{login_ingest_loader,login_ingest_recovery}'),
('links', 3, '{login_ingest_recovery}'),
('logins', 4, '{}'),
('audit', 5, '{}');

CREATE TABLE login_ingest.lease (
    name text PRIMARY KEY REFERENCES login_ingest.named_lock,
    session_token bigint NOT NULL,
    pid integer NOT NULL,
    actor text NOT NULL,
    acquired_at timestamptz NOT NULL
);
COMMENT ON TABLE login_ingest.lease IS
'Locks held by one session over many transactions, with their holder.';
COMMENT ON COLUMN login_ingest.lease.session_token IS
'Random key of an advisory lock that the session holds. The lease ends when the lock is released.';
COMMENT ON COLUMN login_ingest.lease.pid IS 'Server process of the session.';

-- For functions of this schema only: they have checked the caller.
CREATE FUNCTION login_ingest.wait_for_lock(p_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM login_ingest.named_lock WHERE name = p_name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lock does not exist' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;
COMMENT ON FUNCTION login_ingest.wait_for_lock IS
'Acquires a lock until the transaction ends, without a check of the caller.';

CREATE FUNCTION login_ingest.acquire_lock(p_name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM login_ingest.named_lock, unnest(allowed_roles) AS allowed_role
        WHERE name = p_name AND pg_has_role(session_user, allowed_role, 'MEMBER')
    ) THEN
        RAISE EXCEPTION 'permission denied for the lock'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM login_ingest.wait_for_lock(p_name);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.acquire_lock TO login_ingest_loader, login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.acquire_lock IS
'Acquires a lock until the transaction ends. Waits for its holder.';

-- A lease is valid while its session holds an advisory lock on a random key: no other session can
-- know the key beforehand, and the same lock held by another process has no effect.
CREATE FUNCTION login_ingest.acquire_lease(p_name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new_token bigint := (
        'x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint;
BEGIN
    IF p_name <> 'md5_upgrade' THEN
        RAISE EXCEPTION 'the lock has no lease' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM login_ingest.wait_for_lock(p_name);
    IF EXISTS (
        SELECT FROM login_ingest.lease JOIN pg_locks AS advisory USING (pid)
        WHERE name = p_name AND advisory.locktype = 'advisory' AND advisory.granted
          AND advisory.database = (
              SELECT oid FROM pg_database WHERE datname = current_database())
          AND advisory.objsubid = 1
          AND (advisory.classid::bigint << 32 | advisory.objid::bigint) = session_token
    ) OR NOT pg_try_advisory_lock(new_token) THEN
        RETURN false;
    END IF;
    INSERT INTO login_ingest.lease (name, session_token, pid, actor, acquired_at)
    VALUES (p_name, new_token, pg_backend_pid(), session_user, clock_timestamp())
    ON CONFLICT (name) DO UPDATE
    SET session_token = excluded.session_token, pid = excluded.pid, actor = excluded.actor,
        acquired_at = excluded.acquired_at;
    RETURN true;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.acquire_lease TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.acquire_lease IS
'Acquires a lease until the session ends. Returns false if another session has it.';

RESET ROLE;
