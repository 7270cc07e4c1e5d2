-- The table that analysts read. It is in the current schema and belongs to the login that migrates.

-- A user_logins that is there already keeps its columns, its rows and its comments. A new one is
-- partitioned by month where the session has set login_ingest.partitioned to on.
DO $$
DECLARE
    is_partitioned CONSTANT boolean := current_setting('login_ingest.partitioned', true) = 'on';
BEGIN
    IF to_regclass('user_logins') IS NOT NULL THEN
        PERFORM user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
        FROM user_logins LIMIT 0;
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
        )' || CASE WHEN is_partitioned THEN 'PARTITION BY RANGE (create_date)' ELSE '' END;
    IF is_partitioned THEN
        CREATE TABLE login_ingest.user_logins_default PARTITION OF user_logins DEFAULT;
    END IF;
    -- On a table with rows, migrate.py makes this index without holding writers off.
    CREATE INDEX user_logins_user_id ON user_logins (user_id);
    COMMENT ON TABLE user_logins IS
    'Logins with masked fields. Views over it are in the schema login_ingest.';
    PERFORM set_config('login_ingest.is_new_table', 'on', false);
END $$;

-- The loader inserts and reads no token back.
GRANT INSERT ON user_logins TO login_ingest_loader;
GRANT SELECT ON user_logins TO login_ingest_analyst, login_ingest_recovery;
GRANT SELECT, INSERT, UPDATE, DELETE ON user_logins TO login_ingest_owner;

-- The functions that run with the rights of the login that migrates belong to it, so that the owner
-- cannot put another body into them. Members of the owner, who migrate, may call them.

-- Bound to the name, so that the table may be replaced, and to its schema, so that nothing that a
-- caller sets puts another in its place.
DO $$
BEGIN
    EXECUTE format('
        CREATE FUNCTION login_ingest.user_logins() RETURNS regclass
        LANGUAGE sql STABLE
        RETURN (%L::text)::regclass', (
            SELECT format('%s.user_logins', relnamespace::regnamespace) FROM pg_class
            WHERE oid = to_regclass('user_logins')
        ));
END $$;
REVOKE ALL ON FUNCTION login_ingest.user_logins FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.user_logins TO login_ingest_owner;
COMMENT ON FUNCTION login_ingest.user_logins IS 'The table user_logins, whatever its schema.';

-- A token that was erased is null, which is neither a match nor a mismatch.
CREATE FUNCTION login_ingest.untokened_condition() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (
    SELECT
        string_agg(
            format('%I !~ %L', field.token_column, format(
                '^%s:[A-Za-z0-9_-]{%s%s}$',
                field.name,
                field.min_token_length - length(field.name) - 1,
                CASE WHEN field.max_token_length > field.min_token_length THEN ',' END
            )), ' OR '
            ORDER BY known.place
        )
    FROM login_ingest.masked_field AS field
    INNER JOIN login_ingest.login_column AS known ON field.token_column = known.column_name
);
REVOKE ALL ON FUNCTION login_ingest.untokened_condition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.untokened_condition TO login_ingest_owner;
COMMENT ON FUNCTION login_ingest.untokened_condition IS
'The condition, in SQL, that a row of user_logins holds something else than a token in a masked '
'column.';

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
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = login_ingest.user_logins()
                   AND inhrelid = to_regclass('login_ingest.user_logins_default')) THEN
        RETURN NULL;
    END IF;
    FOR months IN -1..3 LOOP
        starts := this_month + make_interval(months => months);
        stops := starts + make_interval(months => 1);
        part := 'user_logins_' || to_char(starts, 'YYYY_MM');
        CONTINUE WHEN to_regclass('login_ingest.' || part) IS NOT NULL;
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', login_ingest.user_logins());
        -- Somebody else may have made it while this waited.
        CONTINUE WHEN to_regclass('login_ingest.' || part) IS NOT NULL;
        EXECUTE format('CREATE TABLE login_ingest.%I (LIKE %s INCLUDING ALL)',
                       part, login_ingest.user_logins());
        EXECUTE format('WITH moved AS (DELETE FROM login_ingest.user_logins_default'
                       ' WHERE create_date >= %L AND create_date < %L RETURNING *)'
                       ' INSERT INTO login_ingest.%I SELECT * FROM moved', starts, stops, part);
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION login_ingest.%I'
                       ' FOR VALUES FROM (%L) TO (%L)',
                       login_ingest.user_logins(), part, starts, stops);
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

-- The index user_logins_untokened is on word for word this condition, and answers it.
CREATE FUNCTION login_ingest.rows_without_tokens() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    counted bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM %s WHERE %s',
                   login_ingest.user_logins(), login_ingest.untokened_condition()) INTO counted;
    RETURN counted;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.rows_without_tokens TO login_ingest_loader;
GRANT EXECUTE ON FUNCTION login_ingest.rows_without_tokens TO login_ingest_recovery;
GRANT EXECUTE ON FUNCTION login_ingest.rows_without_tokens TO login_ingest_auditor;
COMMENT ON FUNCTION login_ingest.rows_without_tokens IS
'How many rows of user_logins hold something else than a token in a masked column.';

-- An operation that has views over the fields makes them in a function make_..._views of its own
-- file.
CREATE FUNCTION login_ingest.make_views() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    maker regproc;
BEGIN
    FOR maker IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'login_ingest'::regnamespace AND proname ~ '^make_.+_views$'
        ORDER BY proname
    LOOP
        EXECUTE format('SELECT %s()', maker);
    END LOOP;
END $$;
COMMENT ON FUNCTION login_ingest.make_views IS 'Makes all views over the fields anew.';

RESET ROLE;

-- For the two functions below: the column, unless it is there, its comment, and its place in the
-- views.
CREATE FUNCTION login_ingest.add_login_column(
    p_column text,
    p_type text,
    p_description text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO login_ingest.login_column (column_name, description)
    VALUES (p_column, p_description);
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = login_ingest.user_logins() AND attname = p_column AND NOT attisdropped
    ) THEN
        EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s',
                       login_ingest.user_logins(), p_column, p_type);
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L',
                       login_ingest.user_logins(), p_column, p_description);
    END IF;
END $$;
REVOKE ALL ON FUNCTION login_ingest.add_login_column FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.add_login_column TO login_ingest_owner;
COMMENT ON FUNCTION login_ingest.add_login_column IS
'Adds a column to user_logins, unless it is there, and to what its readers know.';

-- The rights on user_logins are the table's: a new column has them from the start.
CREATE FUNCTION login_ingest.add_clear_field(
    p_name text,
    p_type text,
    p_description text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM login_ingest.add_login_column(p_name, p_type, p_description);
    PERFORM login_ingest.make_views();
END $$;
REVOKE ALL ON FUNCTION login_ingest.add_clear_field FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.add_clear_field TO login_ingest_owner;
COMMENT ON FUNCTION login_ingest.add_clear_field IS
'Adds a field that is not masked: its column and its place in the views. For migrations.';

-- Its indexes hold writers off user_logins while they are made.
CREATE FUNCTION login_ingest.add_masked_field(
    p_name text,
    p_token_column text,
    p_type text,
    p_min_token_length integer,
    p_max_token_length integer,
    p_singular text,
    p_plural text,
    p_description text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    table_schema regnamespace;
BEGIN
    SELECT relnamespace INTO table_schema FROM pg_class WHERE oid = login_ingest.user_logins();
    PERFORM login_ingest.add_login_column(p_token_column, p_type, format(
        'Token of %s: equal values have equal tokens under one key. Null if erased.',
        p_description));
    INSERT INTO login_ingest.masked_field VALUES (
        p_name, p_token_column, p_min_token_length, p_max_token_length, p_singular, p_plural,
        p_description);
    -- The tokens of one key share a prefix, which only this order of text finds.
    EXECUTE format('CREATE INDEX %I ON %s (%I text_pattern_ops)',
                   'user_logins_' || p_token_column, login_ingest.user_logins(), p_token_column);
    EXECUTE format('COMMENT ON INDEX %s.%I IS %L', table_schema, 'user_logins_' || p_token_column,
                   'Finds the tokens of one key, and the rows of one token.');
    -- Holds only rows that should not exist, so that counting them costs nothing.
    EXECUTE format('DROP INDEX IF EXISTS %s.user_logins_untokened', table_schema);
    EXECUTE format('CREATE INDEX user_logins_untokened ON %s ((1)) WHERE %s',
                   login_ingest.user_logins(), login_ingest.untokened_condition());
    EXECUTE format('COMMENT ON INDEX %s.user_logins_untokened IS %L', table_schema,
                   'Counts the rows that hold something else than a token in a masked column.');
    PERFORM login_ingest.make_views();
END $$;
REVOKE ALL ON FUNCTION login_ingest.add_masked_field FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.add_masked_field TO login_ingest_owner;
COMMENT ON FUNCTION login_ingest.add_masked_field IS
'Adds a masked field: its column, its indexes, and its views. For migrations.';

-- The fields, in the order of the columns.
SELECT login_ingest.add_clear_field(
    'user_id', 'varchar(128)', 'The user, as the app sent it.'
);
SELECT login_ingest.add_clear_field(
    'device_type', 'varchar(32)', 'The kind of device, as the app sent it.'
);
SELECT login_ingest.add_masked_field(
    'ip', 'masked_ip', 'varchar(256)', 53, 53, 'ip', 'ips', 'the IP'
);
SELECT login_ingest.add_masked_field(
    'device_id', 'masked_device_id', 'varchar(256)', 60, 256, 'device', 'devices', 'the device id'
);
SELECT login_ingest.add_clear_field(
    'locale', 'varchar(32)', 'The locale, or null.'
);
SELECT login_ingest.add_clear_field(
    'app_version', 'integer',
    'major * 1,000,000 + minor * 1,000 + patch; null if the version has no such number. '
    'Sort and compare by it.'
);
SELECT login_ingest.add_clear_field(
    'create_date', 'date', 'The UTC day on which SQS took the message.'
);

-- A table that was there already may have comments of its own.
DO $$
DECLARE
    known record;
BEGIN
    IF current_setting('login_ingest.is_new_table', true) = 'on' THEN
        FOR known IN SELECT column_name, description FROM login_ingest.login_column LOOP
            EXECUTE format('COMMENT ON COLUMN user_logins.%I IS %L',
                           known.column_name, known.description);
        END LOOP;
    END IF;
END $$;
