-- What analysts query. All of it is right while keys are rotated.

SET ROLE login_ingest_owner;

-- The groups without links first, so that an index on (token, user, day) gives them in order, and
-- then those that links bring together. Only tokens count: a null was erased, and anything else may
-- be a placeholder, whose rows have nothing in common.
CREATE VIEW login_ingest.repeated_ips AS
SELECT
    login.masked_ip::text AS masked_ip,
    count(*) AS logins,
    count(DISTINCT login.user_id) AS users,
    min(login.create_date) AS first_day,
    max(login.create_date) AS last_day
FROM user_logins AS login
WHERE starts_with(login.masked_ip, 'ip:')
GROUP BY login.masked_ip
HAVING
    count(*) > 1
    AND NOT EXISTS (
        SELECT FROM login_ingest.token_link AS link
        WHERE link.field = 'ip' AND link.old_token = login.masked_ip
    )
    AND NOT EXISTS (
        SELECT FROM login_ingest.token_link AS link
        WHERE link.field = 'ip' AND link.new_token = login.masked_ip
    )
UNION ALL
SELECT
    linked.newest,
    count(*),
    count(DISTINCT login.user_id),
    min(login.create_date),
    max(login.create_date)
FROM (
    SELECT
        old_token AS token,
        new_token AS newest
    FROM login_ingest.token_link
    WHERE field = 'ip'
    UNION
    SELECT
        new_token AS token,
        new_token AS newest
    FROM login_ingest.token_link
    WHERE field = 'ip'
) AS linked
INNER JOIN user_logins AS login ON login.masked_ip = linked.token
GROUP BY linked.newest
HAVING count(*) > 1;
GRANT SELECT ON login_ingest.repeated_ips TO login_ingest_analyst;
COMMENT ON VIEW login_ingest.repeated_ips IS
'IPs that occur in more than one login. Only tokens count. Right while keys are rotated.';
COMMENT ON COLUMN login_ingest.repeated_ips.masked_ip IS 'The newest token of the IP.';
COMMENT ON COLUMN login_ingest.repeated_ips.logins IS 'How many logins have it.';
COMMENT ON COLUMN login_ingest.repeated_ips.users IS 'Across how many users. A null user is none.';
COMMENT ON COLUMN login_ingest.repeated_ips.first_day IS
'The UTC day of the first of these logins.';
COMMENT ON COLUMN login_ingest.repeated_ips.last_day IS 'The UTC day of the last of these logins.';

-- Written so that a condition on the token or on the user reaches an index: rows whose token has no
-- link, and rows that a link leads to.
CREATE VIEW login_ingest.ip_users AS
SELECT
    login.masked_ip,
    login.user_id,
    count(*) AS logins,
    min(login.create_date) AS first_day,
    max(login.create_date) AS last_day
FROM (
    SELECT
        login.masked_ip::text AS masked_ip,
        login.user_id,
        login.create_date
    FROM user_logins AS login
    WHERE
        starts_with(login.masked_ip, 'ip:')
        AND NOT EXISTS (
            SELECT FROM login_ingest.token_link AS link
            WHERE link.field = 'ip' AND link.old_token = login.masked_ip
        )
    UNION ALL
    SELECT
        link.new_token,
        login.user_id,
        login.create_date
    FROM login_ingest.token_link AS link
    INNER JOIN user_logins AS login ON login.masked_ip = link.old_token
    WHERE link.field = 'ip'
) AS login
GROUP BY login.masked_ip, login.user_id;
GRANT SELECT ON login_ingest.ip_users TO login_ingest_analyst;
COMMENT ON VIEW login_ingest.ip_users IS
'One row for each IP and user of it. Only tokens count. Quick for one token and for one user.';
COMMENT ON COLUMN login_ingest.ip_users.masked_ip IS 'The newest token of the IP.';
COMMENT ON COLUMN login_ingest.ip_users.user_id IS 'The user, as the app sent it.';
COMMENT ON COLUMN login_ingest.ip_users.logins IS 'How many logins of the user have it.';
COMMENT ON COLUMN login_ingest.ip_users.first_day IS 'The UTC day of the first of these logins.';
COMMENT ON COLUMN login_ingest.ip_users.last_day IS 'The UTC day of the last of these logins.';

-- The groups without links first, so that an index on (token, user, day) gives them in order, and
-- then those that links bring together. Only tokens count: a null was erased, and anything else may
-- be a placeholder, whose rows have nothing in common.
CREATE VIEW login_ingest.repeated_devices AS
SELECT
    login.masked_device_id::text AS masked_device_id,
    count(*) AS logins,
    count(DISTINCT login.user_id) AS users,
    min(login.create_date) AS first_day,
    max(login.create_date) AS last_day
FROM user_logins AS login
WHERE starts_with(login.masked_device_id, 'device_id:')
GROUP BY login.masked_device_id
HAVING
    count(*) > 1
    AND NOT EXISTS (
        SELECT FROM login_ingest.token_link AS link
        WHERE link.field = 'device_id' AND link.old_token = login.masked_device_id
    )
    AND NOT EXISTS (
        SELECT FROM login_ingest.token_link AS link
        WHERE link.field = 'device_id' AND link.new_token = login.masked_device_id
    )
UNION ALL
SELECT
    linked.newest,
    count(*),
    count(DISTINCT login.user_id),
    min(login.create_date),
    max(login.create_date)
FROM (
    SELECT
        old_token AS token,
        new_token AS newest
    FROM login_ingest.token_link
    WHERE field = 'device_id'
    UNION
    SELECT
        new_token AS token,
        new_token AS newest
    FROM login_ingest.token_link
    WHERE field = 'device_id'
) AS linked
INNER JOIN user_logins AS login ON login.masked_device_id = linked.token
GROUP BY linked.newest
HAVING count(*) > 1;
GRANT SELECT ON login_ingest.repeated_devices TO login_ingest_analyst;
COMMENT ON VIEW login_ingest.repeated_devices IS
'Devices that occur in more than one login. Only tokens count. Right while keys are rotated.';
COMMENT ON COLUMN login_ingest.repeated_devices.masked_device_id IS
'The newest token of the device id.';
COMMENT ON COLUMN login_ingest.repeated_devices.logins IS 'How many logins have it.';
COMMENT ON COLUMN login_ingest.repeated_devices.users IS
'Across how many users. A null user is none.';
COMMENT ON COLUMN login_ingest.repeated_devices.first_day IS
'The UTC day of the first of these logins.';
COMMENT ON COLUMN login_ingest.repeated_devices.last_day IS
'The UTC day of the last of these logins.';

-- Written so that a condition on the token or on the user reaches an index: rows whose token has no
-- link, and rows that a link leads to.
CREATE VIEW login_ingest.device_users AS
SELECT
    login.masked_device_id,
    login.user_id,
    count(*) AS logins,
    min(login.create_date) AS first_day,
    max(login.create_date) AS last_day
FROM (
    SELECT
        login.masked_device_id::text AS masked_device_id,
        login.user_id,
        login.create_date
    FROM user_logins AS login
    WHERE
        starts_with(login.masked_device_id, 'device_id:')
        AND NOT EXISTS (
            SELECT FROM login_ingest.token_link AS link
            WHERE link.field = 'device_id' AND link.old_token = login.masked_device_id
        )
    UNION ALL
    SELECT
        link.new_token,
        login.user_id,
        login.create_date
    FROM login_ingest.token_link AS link
    INNER JOIN user_logins AS login ON login.masked_device_id = link.old_token
    WHERE link.field = 'device_id'
) AS login
GROUP BY login.masked_device_id, login.user_id;
GRANT SELECT ON login_ingest.device_users TO login_ingest_analyst;
COMMENT ON VIEW login_ingest.device_users IS
'One row for each device and user of it. Only tokens count. Quick for one token and for one user.';
COMMENT ON COLUMN login_ingest.device_users.masked_device_id IS
'The newest token of the device id.';
COMMENT ON COLUMN login_ingest.device_users.user_id IS 'The user, as the app sent it.';
COMMENT ON COLUMN login_ingest.device_users.logins IS 'How many logins of the user have it.';
COMMENT ON COLUMN login_ingest.device_users.first_day IS
'The UTC day of the first of these logins.';
COMMENT ON COLUMN login_ingest.device_users.last_day IS 'The UTC day of the last of these logins.';

-- A device of n users makes n * (n - 1) / 2 pairs: one that half the world uses says nothing of two
-- of them, and would make more rows than the table has.
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
    min(greatest(one.first_day, other.first_day)) AS since,
    max(greatest(one.last_day, other.last_day)) AS last_day
FROM shared
INNER JOIN of_device AS one USING (masked_device_id)
INNER JOIN of_device AS other USING (masked_device_id)
WHERE one.user_id < other.user_id
GROUP BY one.user_id, other.user_id;
GRANT SELECT ON login_ingest.users_sharing_devices TO login_ingest_analyst;
COMMENT ON VIEW login_ingest.users_sharing_devices IS
'Pairs of users that have used the same device, each pair once. A device of more than 50 users '
'makes no pairs: see repeated_devices for it.';
COMMENT ON COLUMN login_ingest.users_sharing_devices.user_id IS
'One user of the pair, the first in the order of text.';
COMMENT ON COLUMN login_ingest.users_sharing_devices.other_user_id IS 'The other user of the pair.';
COMMENT ON COLUMN login_ingest.users_sharing_devices.devices IS 'How many devices both have used.';
COMMENT ON COLUMN login_ingest.users_sharing_devices.since IS
'The first day by which both had used one of these devices.';
COMMENT ON COLUMN login_ingest.users_sharing_devices.last_day IS
'The last day on which one of them used one of these devices.';

CREATE VIEW login_ingest.readable_logins AS
SELECT
    user_id,
    device_type,
    masked_ip,
    masked_device_id,
    locale,
    app_version,
    CASE
        WHEN app_version >= 0 THEN concat_ws(
            '.', app_version / 1000000, app_version / 1000 % 1000, app_version % 1000
        )
    END AS version,
    create_date
FROM login_ingest.user_logins_linked;
GRANT SELECT ON login_ingest.readable_logins TO login_ingest_analyst;
COMMENT ON VIEW login_ingest.readable_logins IS
'Every login, with tokens that hold while keys are rotated and the version as text.';
COMMENT ON COLUMN login_ingest.readable_logins.user_id IS 'The user, as the app sent it.';
COMMENT ON COLUMN login_ingest.readable_logins.device_type IS
'The kind of device, as the app sent it.';
COMMENT ON COLUMN login_ingest.readable_logins.masked_ip IS 'The newest token of the IP.';
COMMENT ON COLUMN login_ingest.readable_logins.masked_device_id IS
'The newest token of the device id.';
COMMENT ON COLUMN login_ingest.readable_logins.locale IS 'The locale, or null.';
COMMENT ON COLUMN login_ingest.readable_logins.app_version IS
'major * 1,000,000 + minor * 1,000 + patch; null if the version has no such number. Sort and '
'compare by it.';
COMMENT ON COLUMN login_ingest.readable_logins.version IS
'app_version as major.minor.patch, to read. As text 10.0.0 comes before 2.0.0: sort and compare '
'by app_version.';
COMMENT ON COLUMN login_ingest.readable_logins.create_date IS
'The UTC day on which SQS took the message.';

RESET ROLE;
