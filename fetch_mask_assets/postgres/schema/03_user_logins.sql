-- The table user_logins, which analysts read. It is in the current schema and belongs to the login
-- that migrates.

-- An existing table keeps its columns, rows and comments. A new table is partitioned by month if
-- the session has set login_ingest.partitioned to on.
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
        COMMENT ON TABLE login_ingest.user_logins_default IS
        'Logins of months without a partition.';
    END IF;
    -- For erasures of a user, and for the logins and devices of a user in the views. On a table with
    -- rows, migrate.py creates this index concurrently.
    CREATE INDEX user_logins_user_id ON user_logins (user_id);
    COMMENT ON TABLE user_logins IS
    'Logins with masked fields. Views over it are in the schema login_ingest.';
    PERFORM set_config('login_ingest.is_new_table', 'on', false);
END $$;

-- The loader inserts rows and cannot read them.
GRANT INSERT ON user_logins TO login_ingest_loader;
GRANT SELECT ON user_logins TO login_ingest_analyst, login_ingest_recovery;
GRANT SELECT, INSERT, UPDATE, DELETE ON user_logins TO login_ingest_owner;

-- Functions up to SET ROLE belong to the login that migrates, so that login_ingest_owner cannot
-- replace them.

-- The body names the table and its schema: the table may be replaced, and the search_path of a
-- caller has no effect.
DO $$
BEGIN
    EXECUTE format('
        CREATE FUNCTION login_ingest.logins_table() RETURNS regclass
        LANGUAGE sql STABLE
        RETURN (%L::text)::regclass', (
            SELECT format('%s.user_logins', relnamespace::regnamespace) FROM pg_class
            WHERE oid = to_regclass('user_logins')
        ));
END $$;
REVOKE ALL ON FUNCTION login_ingest.logins_table FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.logins_table TO login_ingest_owner;
COMMENT ON FUNCTION login_ingest.logins_table IS 'Returns the table user_logins with its schema.';

-- An erased token is null: for null the condition is not true. Lengths are checked beside the
-- pattern: a bound in the pattern makes it ten times slower.
CREATE FUNCTION login_ingest.non_token_condition() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (
    SELECT
        string_agg(
            format(
                '(length(%1$I) BETWEEN %2$s AND %3$s AND %1$I ~ %4$L) IS FALSE',
                field.token_column,
                field.min_token_length,
                field.max_token_length,
                format('^%s:[A-Za-z0-9_-]+$', field.name)
            ), ' OR '
            ORDER BY listed.ordinal_position
        )
    FROM login_ingest.masked_field AS field
    INNER JOIN login_ingest.login_column AS listed ON field.token_column = listed.column_name
);
REVOKE ALL ON FUNCTION login_ingest.non_token_condition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.non_token_condition TO login_ingest_owner;
COMMENT ON FUNCTION login_ingest.non_token_condition IS
'Returns the SQL condition that a masked column of user_logins contains a text that is not a '
'token.';

-- Without parameters: a caller can create only the partitions that are due. The table is locked
-- while rows move out of the default partition, so that readers see each row once. The lock
-- time-out is short, because runs wait behind this lock. Only the owner of user_logins can attach
-- partitions.
CREATE FUNCTION login_ingest.create_partitions() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
SET datestyle = 'ISO'
AS $$
DECLARE
    this_month date := date_trunc('month', now() AT TIME ZONE 'UTC');
    first_day date;
    next_first_day date;
    partition_name text;
    created integer := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = login_ingest.logins_table()
                   AND inhrelid = to_regclass('login_ingest.user_logins_default')) THEN
        RETURN NULL;
    END IF;
    FOR months IN -1..3 LOOP
        first_day := this_month + make_interval(months => months);
        next_first_day := first_day + make_interval(months => 1);
        partition_name := 'user_logins_' || to_char(first_day, 'YYYY_MM');
        CONTINUE WHEN to_regclass('login_ingest.' || partition_name) IS NOT NULL;
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', login_ingest.logins_table());
        -- Another session may have created it during the wait for the lock.
        CONTINUE WHEN to_regclass('login_ingest.' || partition_name) IS NOT NULL;
        EXECUTE format('CREATE TABLE login_ingest.%I (LIKE %s INCLUDING ALL)',
                       partition_name, login_ingest.logins_table());
        EXECUTE format('WITH moved AS (DELETE FROM login_ingest.user_logins_default'
                       ' WHERE create_date >= %L AND create_date < %L RETURNING *)'
                       ' INSERT INTO login_ingest.%I SELECT * FROM moved',
                       first_day, next_first_day, partition_name);
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION login_ingest.%I'
                       ' FOR VALUES FROM (%L) TO (%L)',
                       login_ingest.logins_table(), partition_name, first_day, next_first_day);
        created := created + 1;
    END LOOP;
    RETURN created;
END $$;
REVOKE ALL ON FUNCTION login_ingest.create_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.create_partitions TO login_ingest_loader;
GRANT EXECUTE ON FUNCTION login_ingest.create_partitions TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.create_partitions IS
'Creates the monthly partitions of user_logins from last month to three months ahead. Returns how '
'many were created, and null if no migration partitioned user_logins.';

SET ROLE login_ingest_owner;

CREATE FUNCTION login_ingest.non_token_rows() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    counted bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM %s WHERE %s',
                   login_ingest.logins_table(), login_ingest.non_token_condition()) INTO counted;
    RETURN counted;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.non_token_rows TO login_ingest_loader;
GRANT EXECUTE ON FUNCTION login_ingest.non_token_rows TO login_ingest_recovery;
GRANT EXECUTE ON FUNCTION login_ingest.non_token_rows TO login_ingest_auditor;
COMMENT ON FUNCTION login_ingest.non_token_rows IS
'Returns the number of rows of user_logins in which a masked column contains a text that is not a '
'token. Reads the whole table.';

-- Called after each batch. The texts before and after those with the prefix are two ranges of the
-- index on the column. With the settings and the limit a call costs the same, whatever the table
-- contains and whether it has statistics.
CREATE FUNCTION login_ingest.unprefixed_rows() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
    ranges text;
    counted bigint;
BEGIN
    SELECT string_agg(format(
        '(SELECT tableoid, ctid FROM %1$s WHERE %2$I ~<~ %3$L LIMIT 1000) UNION '
        '(SELECT tableoid, ctid FROM %1$s WHERE %2$I ~>=~ %4$L LIMIT 1000)',
        login_ingest.logins_table(), token_column, name || ':', name || chr(ascii(':') + 1)
    ), ' UNION ') INTO ranges
    FROM login_ingest.masked_field;
    EXECUTE format('SELECT count(*) FROM (%s) AS unprefixed', ranges) INTO counted;
    RETURN counted;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.unprefixed_rows TO login_ingest_loader;
GRANT EXECUTE ON FUNCTION login_ingest.unprefixed_rows TO login_ingest_recovery;
GRANT EXECUTE ON FUNCTION login_ingest.unprefixed_rows TO login_ingest_auditor;
COMMENT ON FUNCTION login_ingest.unprefixed_rows IS
'Returns the number of rows of user_logins in which a masked column contains a text without the '
'prefix of its tokens, found by index. Of more than 1,000 in a range, 1,000 are counted.';

-- An operation with views over the fields creates them in a function make_..._views of its own
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
COMMENT ON FUNCTION login_ingest.make_views IS 'Recreates all views over the fields.';

RESET ROLE;

-- For the two functions below.
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
        WHERE attrelid = login_ingest.logins_table() AND attname = p_column AND NOT attisdropped
    ) THEN
        EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s',
                       login_ingest.logins_table(), p_column, p_type);
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L',
                       login_ingest.logins_table(), p_column, p_description);
    END IF;
END $$;
REVOKE ALL ON FUNCTION login_ingest.add_login_column FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.add_login_column TO login_ingest_owner;
COMMENT ON FUNCTION login_ingest.add_login_column IS
'Adds a column to user_logins, if it does not exist, and to login_column.';

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
'Adds a clear field: its column, and the column of the views. For migrations.';

-- Writers of user_logins wait while the index is created.
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
    SELECT relnamespace INTO table_schema FROM pg_class WHERE oid = login_ingest.logins_table();
    PERFORM login_ingest.add_login_column(p_token_column, p_type, format(
        'Token of %s: equal values have equal tokens under one key. Null if erased.',
        p_description));
    INSERT INTO login_ingest.masked_field VALUES (
        p_name, p_token_column, p_min_token_length, p_max_token_length, p_singular, p_plural,
        p_description);
    -- For rotations and erasures, for the rows of a token in the views, and for unprefixed_rows. Tokens
    -- of one key share a prefix. Only text_pattern_ops finds a prefix in every collation.
    EXECUTE format('CREATE INDEX %I ON %s (%I text_pattern_ops)',
                   'user_logins_' || p_token_column, login_ingest.logins_table(), p_token_column);
    EXECUTE format('COMMENT ON INDEX %s.%I IS %L', table_schema, 'user_logins_' || p_token_column,
                   'Tokens of one key, rows of one token, and texts without the prefix of a token.');
    PERFORM login_ingest.make_views();
END $$;
REVOKE ALL ON FUNCTION login_ingest.add_masked_field FROM PUBLIC;
GRANT EXECUTE ON FUNCTION login_ingest.add_masked_field TO login_ingest_owner;
COMMENT ON FUNCTION login_ingest.add_masked_field IS
'Adds a masked field: its column, its index and its views. For migrations.';

-- The fields, in the order of the columns.
SELECT login_ingest.add_clear_field(
    'user_id', 'varchar(128)', 'The user, as the app sent it.'
);
SELECT login_ingest.add_clear_field(
    'device_type', 'varchar(32)', 'The kind of device, as the app sent it.'
);
SELECT login_ingest.add_masked_field(
    'ip', 'masked_ip', 'varchar(256)', 53, 53, 'IP', 'IPs', 'the IP'
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
    'create_date', 'date', 'The UTC day on which SQS accepted the message.'
);

-- An existing table keeps its comments.
DO $$
DECLARE
    listed record;
BEGIN
    IF current_setting('login_ingest.is_new_table', true) = 'on' THEN
        FOR listed IN SELECT column_name, description FROM login_ingest.login_column LOOP
            EXECUTE format('COMMENT ON COLUMN user_logins.%I IS %L',
                           listed.column_name, listed.description);
        END LOOP;
    END IF;
END $$;
