-- The table that analysts read. It is in the current schema and belongs to the login that migrates.

-- A user_logins that is there already keeps its columns, its rows and its comments. A new one is
-- partitioned by month where the session has set login_ingest.partitioned to on.
DO $$
BEGIN
    IF to_regclass('user_logins') IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE '
        CREATE TABLE user_logins (
            user_id          varchar(128),
            device_type      varchar(32),
            masked_ip        varchar(256),
            masked_device_id varchar(256),
            locale           varchar(32),
            app_version      integer,
            create_date      date
        )' || CASE WHEN current_setting('login_ingest.partitioned', true) = 'on'
                   THEN 'PARTITION BY RANGE (create_date)' ELSE '' END;
    IF current_setting('login_ingest.partitioned', true) = 'on' THEN
        CREATE TABLE login_ingest.user_logins_default PARTITION OF user_logins DEFAULT;
    END IF;
    -- On a table with rows, migrate.py makes this index without holding writers off.
    CREATE INDEX user_logins_user_id ON user_logins (user_id);
    COMMENT ON TABLE user_logins IS
    'Logins with masked IP and device id. Views over it are in the schema login_ingest.';
    COMMENT ON COLUMN user_logins.user_id IS 'The user, as the app sent it.';
    COMMENT ON COLUMN user_logins.device_type IS 'The kind of device, as the app sent it.';
    COMMENT ON COLUMN user_logins.masked_ip IS
    'Token of the IP: equal IPs have equal tokens under one key. Null if erased.';
    COMMENT ON COLUMN user_logins.masked_device_id IS
    'Token of the device id: equal ids have equal tokens under one key. Null if erased.';
    COMMENT ON COLUMN user_logins.locale IS 'The locale, or null.';
    COMMENT ON COLUMN user_logins.app_version IS
    'major * 1,000,000 + minor * 1,000 + patch; null if the version has no such number. '
    'Sort and compare by it.';
    COMMENT ON COLUMN user_logins.create_date IS 'The UTC day on which SQS took the message.';
END $$;

-- The tokens of one key share a prefix, which only this order of text finds.
CREATE INDEX user_logins_masked_ip ON user_logins (masked_ip text_pattern_ops);
COMMENT ON INDEX user_logins_masked_ip IS 'Finds the tokens of one key, and the rows of one token.';

CREATE INDEX user_logins_masked_device_id ON user_logins (masked_device_id text_pattern_ops);
COMMENT ON INDEX user_logins_masked_device_id IS
'Finds the tokens of one key, and the rows of one token.';

-- Holds only rows that should not exist, so that counting them costs nothing. A token that was
-- erased is null, which is neither a match nor a mismatch.
CREATE INDEX user_logins_untokened ON user_logins ((1))
WHERE
masked_ip !~ '^ip:[A-Za-z0-9_-]{50}$'
OR masked_device_id !~ '^device_id:[A-Za-z0-9_-]{50,}$';

-- The loader inserts and reads no token back.
GRANT INSERT ON user_logins TO login_ingest_loader;
GRANT SELECT ON user_logins TO login_ingest_analyst, login_ingest_recovery;
GRANT SELECT, INSERT, UPDATE, DELETE ON user_logins TO login_ingest_owner;

-- No argument: a caller can only make what is due anyway. It takes the lock of the whole table, so
-- that no row is between the default partition and its own while others read, and gives up soon
-- rather than make the runs behind it wait. It belongs to the owner of user_logins, who alone may
-- attach partitions.
CREATE FUNCTION login_ingest.create_partitions() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
SET datestyle = 'ISO'
AS $$
DECLARE
    this_month date := date_trunc('month', now() AT TIME ZONE 'UTC');
    starts date;
    stops date;
    part text;
    made integer := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass('public.user_logins')
                   AND inhrelid = to_regclass('login_ingest.user_logins_default')) THEN
        RETURN NULL;
    END IF;
    FOR months IN -1..3 LOOP
        starts := this_month + make_interval(months => months);
        stops := starts + make_interval(months => 1);
        part := 'user_logins_' || to_char(starts, 'YYYY_MM');
        CONTINUE WHEN to_regclass('login_ingest.' || part) IS NOT NULL;
        LOCK TABLE public.user_logins IN ACCESS EXCLUSIVE MODE;
        -- Somebody else may have made it while this waited.
        CONTINUE WHEN to_regclass('login_ingest.' || part) IS NOT NULL;
        EXECUTE format('CREATE TABLE login_ingest.%I (LIKE public.user_logins INCLUDING ALL)',
                       part);
        EXECUTE format('WITH moved AS (DELETE FROM login_ingest.user_logins_default'
                       ' WHERE create_date >= %L AND create_date < %L RETURNING *)'
                       ' INSERT INTO login_ingest.%I SELECT * FROM moved', starts, stops, part);
        EXECUTE format('ALTER TABLE public.user_logins ATTACH PARTITION login_ingest.%I'
                       ' FOR VALUES FROM (%L) TO (%L)', part, starts, stops);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION login_ingest.create_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.create_partitions TO login_ingest_loader;
GRANT EXECUTE ON FUNCTION login_ingest.create_partitions TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.create_partitions IS
'Makes the monthly partitions of user_logins that are due, last month to three months ahead. How '
'many; null if user_logins is not partitioned by us.';

SET ROLE login_ingest_owner;

-- Word for word the predicate of the index user_logins_untokened, which answers it.
CREATE FUNCTION login_ingest.rows_without_tokens() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp
RETURN (
    SELECT count(*) FROM user_logins
    WHERE
        masked_ip !~ '^ip:[A-Za-z0-9_-]{50}$'
        OR masked_device_id !~ '^device_id:[A-Za-z0-9_-]{50,}$'
);
GRANT EXECUTE ON FUNCTION login_ingest.rows_without_tokens TO login_ingest_loader;
GRANT EXECUTE ON FUNCTION login_ingest.rows_without_tokens TO login_ingest_recovery;
GRANT EXECUTE ON FUNCTION login_ingest.rows_without_tokens TO login_ingest_auditor;
COMMENT ON FUNCTION login_ingest.rows_without_tokens IS
'How many rows of user_logins hold something else than a token in a masked column.';

RESET ROLE;
