-- Roles and the schema. The role login_ingest_owner owns nearly every object and cannot log in. The
-- login that migrates owns what login_ingest_owner must not change: the schema, the audit and the
-- policies.

-- Roles belong to the server: a migration of another database may create them at the same time.
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
'Ingestion of login events: every object except the table user_logins.';

-- Functions of login_ingest_owner read and write user_logins, which is in the current schema.
DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO login_ingest_owner', current_schema());
END $$;

-- Alembic creates this table before the first migration, and writes it.
CREATE TABLE IF NOT EXISTS login_ingest.schema_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT schema_version_pkc PRIMARY KEY (version_num)
);
ALTER TABLE login_ingest.schema_version OWNER TO login_ingest_owner;
GRANT SELECT ON login_ingest.schema_version TO login_ingest_loader;
GRANT SELECT ON login_ingest.schema_version TO login_ingest_recovery;
GRANT SELECT ON login_ingest.schema_version TO login_ingest_auditor;
COMMENT ON TABLE login_ingest.schema_version IS 'Revision of the schema. One row.';

-- PUBLIC cannot execute functions of login_ingest_owner.
SET ROLE login_ingest_owner;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
RESET ROLE;
