-- Views for analysts, correct during a rotation. They count only tokens: a null was erased, and
-- another text may be a placeholder, whose rows have nothing in common.

SET ROLE login_ingest_owner;

-- First the tokens without links, in the order of an index on (token, user, day), then the tokens
-- that are linked.
CREATE FUNCTION login_ingest.make_repeated_view(p_field login_ingest.masked_field) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    view_name text := 'repeated_' || lower(p_field.plural);
BEGIN
    EXECUTE format($sql$
        CREATE OR REPLACE VIEW login_ingest.%1$I AS
        SELECT
            login.%2$I::text AS %2$I,
            count(*) AS logins,
            count(DISTINCT login.user_id) AS users,
            min(login.create_date) AS first_day,
            max(login.create_date) AS last_day
        FROM %3$s AS login
        WHERE starts_with(login.%2$I, %5$L)
        GROUP BY login.%2$I
        HAVING count(*) > 1
           AND NOT EXISTS (SELECT FROM login_ingest.token_link AS link
                           WHERE link.field = %4$L AND link.old_token = login.%2$I)
           AND NOT EXISTS (SELECT FROM login_ingest.token_link AS link
                           WHERE link.field = %4$L AND link.new_token = login.%2$I)
        UNION ALL
        SELECT
            linked.newest,
            count(*),
            count(DISTINCT login.user_id),
            min(login.create_date),
            max(login.create_date)
        FROM (
            SELECT old_token AS token, new_token AS newest
            FROM login_ingest.token_link WHERE field = %4$L
            UNION
            SELECT new_token, new_token FROM login_ingest.token_link WHERE field = %4$L
        ) AS linked
        JOIN %3$s AS login ON login.%2$I = linked.token
        GROUP BY linked.newest
        HAVING count(*) > 1
    $sql$, view_name, p_field.token_column, login_ingest.logins_table(), p_field.name,
    p_field.name || ':');
    PERFORM login_ingest.describe_view(
        view_name,
        format('Values of %s that occur in more than one login. Correct during a rotation.',
               p_field.description),
        jsonb_build_object(
            p_field.token_column, format('The newest token of %s.', p_field.description),
            'logins', 'Number of logins.',
            'users', 'Number of users. A null user is not counted.',
            'first_day', 'UTC day of the first login.',
            'last_day', 'UTC day of the last login.'));
END $$;
COMMENT ON FUNCTION login_ingest.make_repeated_view IS
'Creates the view of the values of a field that occur in more than one login.';

-- The two parts let a condition on the token or on the user use an index.
CREATE FUNCTION login_ingest.make_users_view(p_field login_ingest.masked_field) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    view_name text := lower(p_field.singular) || '_users';
BEGIN
    EXECUTE format($sql$
        CREATE OR REPLACE VIEW login_ingest.%1$I AS
        SELECT
            login.%2$I,
            login.user_id,
            count(*) AS logins,
            min(login.create_date) AS first_day,
            max(login.create_date) AS last_day
        FROM (
            SELECT login.%2$I::text AS %2$I, login.user_id, login.create_date
            FROM %3$s AS login
            WHERE starts_with(login.%2$I, %5$L)
              AND NOT EXISTS (SELECT FROM login_ingest.token_link AS link
                              WHERE link.field = %4$L AND link.old_token = login.%2$I)
            UNION ALL
            SELECT link.new_token, login.user_id, login.create_date
            FROM login_ingest.token_link AS link
            JOIN %3$s AS login ON login.%2$I = link.old_token
            WHERE link.field = %4$L
        ) AS login
        GROUP BY login.%2$I, login.user_id
    $sql$, view_name, p_field.token_column, login_ingest.logins_table(), p_field.name,
    p_field.name || ':');
    PERFORM login_ingest.describe_view(
        view_name,
        format('Users of each %s. A condition on the token or on the user uses an index.',
               p_field.singular),
        jsonb_build_object(
            p_field.token_column, format('The newest token of %s.', p_field.description),
            'user_id', 'The user, as the app sent it.',
            'logins', 'Number of logins of the user.',
            'first_day', 'UTC day of the first login.',
            'last_day', 'UTC day of the last login.'));
END $$;
COMMENT ON FUNCTION login_ingest.make_users_view IS
'Creates the view of the users of each value of a field.';

CREATE FUNCTION login_ingest.make_readable_view() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns text;
    comments jsonb;
BEGIN
    SELECT string_agg(format('%I', listed.column_name)
                      || CASE listed.column_name WHEN 'app_version' THEN $sql$,
                         CASE WHEN app_version >= 0 THEN concat_ws(
                             '.', app_version / 1000000, app_version / 1000 % 1000,
                             app_version % 1000
                         ) END AS version$sql$ ELSE '' END,
                      ', ' ORDER BY listed.ordinal_position),
           jsonb_object_agg(listed.column_name, CASE
               WHEN field.name IS NULL THEN listed.description
               ELSE format('The newest token of %s.', field.description) END)
    INTO columns, comments
    FROM login_ingest.login_column AS listed
    LEFT JOIN login_ingest.masked_field AS field ON field.token_column = listed.column_name;
    EXECUTE format('CREATE OR REPLACE VIEW login_ingest.readable_logins AS
                    SELECT %s FROM login_ingest.user_logins_linked', columns);
    PERFORM login_ingest.describe_view(
        'readable_logins',
        'Logins with the newest tokens, and with the version as text.',
        comments || jsonb_build_object('version',
            'app_version as major.minor.patch. As text, 10.0.0 sorts before 2.0.0: sort and compare '
            'by app_version.'));
END $$;
COMMENT ON FUNCTION login_ingest.make_readable_view IS 'Creates the view readable_logins.';

CREATE FUNCTION login_ingest.describe_view(p_view text, p_comment text, p_columns jsonb)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    described record;
BEGIN
    EXECUTE format('GRANT SELECT ON login_ingest.%I TO login_ingest_analyst', p_view);
    EXECUTE format('COMMENT ON VIEW login_ingest.%I IS %L', p_view, p_comment);
    FOR described IN SELECT key AS column_name, value AS text FROM jsonb_each_text(p_columns) LOOP
        EXECUTE format('COMMENT ON COLUMN login_ingest.%I.%I IS %L',
                       p_view, described.column_name, described.text);
    END LOOP;
END $$;
COMMENT ON FUNCTION login_ingest.describe_view IS
'Grants a view to analysts, and sets its comments.';

CREATE FUNCTION login_ingest.make_analysis_views() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field login_ingest.masked_field;
BEGIN
    PERFORM login_ingest.make_linked_views();
    FOR field IN SELECT * FROM login_ingest.masked_field LOOP
        PERFORM login_ingest.make_repeated_view(field);
        PERFORM login_ingest.make_users_view(field);
    END LOOP;
    PERFORM login_ingest.make_readable_view();
END $$;
COMMENT ON FUNCTION login_ingest.make_analysis_views IS
'Creates repeated_... and ..._users for each masked field, and readable_logins.';

SELECT login_ingest.make_analysis_views();

-- A device of n users has n * (n - 1) / 2 pairs. A device of many users relates no two of them, and
-- would have more pairs than the table has rows.
CREATE VIEW login_ingest.users_sharing_devices AS
WITH of_device AS MATERIALIZED (
    SELECT * FROM login_ingest.device_users
    WHERE user_id IS NOT NULL
),

shared AS (
    SELECT masked_device_id FROM of_device
    GROUP BY masked_device_id
    HAVING count(*) BETWEEN 2 AND 50
)

SELECT
    one.user_id,
    other.user_id AS other_user_id,
    count(*) AS devices,
    min(greatest(one.first_day, other.first_day)) AS first_day,
    max(greatest(one.last_day, other.last_day)) AS last_day
FROM shared
INNER JOIN of_device AS one USING (masked_device_id)
INNER JOIN of_device AS other USING (masked_device_id)
WHERE one.user_id < other.user_id
GROUP BY one.user_id, other.user_id;
GRANT SELECT ON login_ingest.users_sharing_devices TO login_ingest_analyst;
COMMENT ON VIEW login_ingest.users_sharing_devices IS
'Pairs of users of the same device, each pair once. Devices of more than 50 users are left out: '
'see repeated_devices.';
COMMENT ON COLUMN login_ingest.users_sharing_devices.user_id IS
'User of the pair that sorts first.';
COMMENT ON COLUMN login_ingest.users_sharing_devices.other_user_id IS 'Other user of the pair.';
COMMENT ON COLUMN login_ingest.users_sharing_devices.devices IS
'Number of devices that both have used.';
COMMENT ON COLUMN login_ingest.users_sharing_devices.first_day IS
'First day by which both had used one of these devices.';
COMMENT ON COLUMN login_ingest.users_sharing_devices.last_day IS
'Last day on which one of them used one of these devices.';

RESET ROLE;
