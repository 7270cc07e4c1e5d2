-- Who may do what. The owner owns nearly everything and cannot log in; the login that migrates owns
-- what the owner must not change: the schema itself, the audit and the limits.

-- Roles belong to the server: another database of it may have made them, or may be making them now.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'login_ingest_owner',
        'login_ingest_loader',
        'login_ingest_analyst',
        'login_ingest_recovery',
        'login_ingest_auditor'
    ] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END $$;

GRANT login_ingest_owner TO CURRENT_USER;

CREATE SCHEMA IF NOT EXISTS login_ingest;
GRANT USAGE ON SCHEMA login_ingest TO login_ingest_loader;
GRANT USAGE ON SCHEMA login_ingest TO login_ingest_analyst;
GRANT USAGE ON SCHEMA login_ingest TO login_ingest_recovery;
GRANT USAGE ON SCHEMA login_ingest TO login_ingest_auditor;
GRANT USAGE, CREATE ON SCHEMA login_ingest TO login_ingest_owner;
COMMENT ON SCHEMA login_ingest IS
'The ingestion of login events: everything of it but the table user_logins.';

-- The owner's functions read and write user_logins, which is in the current schema.
DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO login_ingest_owner', current_schema());
END $$;

-- Alembic makes this table before the first migration runs, and writes it.
CREATE TABLE IF NOT EXISTS login_ingest.schema_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT schema_version_pkc PRIMARY KEY (version_num)
);
ALTER TABLE login_ingest.schema_version OWNER TO login_ingest_owner;
GRANT SELECT ON login_ingest.schema_version TO login_ingest_loader;
GRANT SELECT ON login_ingest.schema_version TO login_ingest_recovery;
GRANT SELECT ON login_ingest.schema_version TO login_ingest_auditor;
COMMENT ON TABLE login_ingest.schema_version IS 'The revision of the schema: one row.';

-- Every function of the owner is for nobody until it is granted.
SET ROLE login_ingest_owner;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
RESET ROLE;
