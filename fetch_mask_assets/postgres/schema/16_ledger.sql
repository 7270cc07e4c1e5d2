-- The ledger over time: its partitions, its start, and messages whose send time has changed.

SET ROLE login_ingest_owner;

-- Partitions from the oldest day that SQS can deliver to two days ahead. Runs and the upkeep call
-- it; without a partition, messages go to ledger_default. Writers are locked out while rows move
-- from there. The lock time-out is short, because runs wait behind this lock.
CREATE FUNCTION login_ingest.create_ledger_partitions() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $$
DECLARE
    day date;
    partition_name text;
    created integer := 0;
BEGIN
    FOR days IN -14..2 LOOP
        day := current_date + days;
        partition_name := 'ledger_' || to_char(day, 'YYYY_MM_DD');
        CONTINUE WHEN to_regclass('login_ingest.' || partition_name) IS NOT NULL;
        LOCK TABLE ONLY login_ingest.ledger IN SHARE ROW EXCLUSIVE MODE;
        -- Another session may have created it during the wait for the lock.
        CONTINUE WHEN to_regclass('login_ingest.' || partition_name) IS NOT NULL;
        EXECUTE format('CREATE TABLE login_ingest.%I (LIKE login_ingest.ledger INCLUDING ALL)',
                       partition_name);
        EXECUTE format('WITH moved AS (DELETE FROM login_ingest.ledger_default'
                       ' WHERE sent_at >= %L AND sent_at < %L RETURNING *)'
                       ' INSERT INTO login_ingest.%I SELECT * FROM moved',
                       day, day + 1, partition_name);
        EXECUTE format('ALTER TABLE login_ingest.ledger ATTACH PARTITION login_ingest.%I'
                       ' FOR VALUES FROM (%L) TO (%L)', partition_name, day, day + 1);
        created := created + 1;
    END LOOP;
    RETURN created;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.create_ledger_partitions TO login_ingest_loader;
GRANT EXECUTE ON FUNCTION login_ingest.create_ledger_partitions TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.create_ledger_partitions IS
'Creates the daily partitions of the ledger from 14 days ago to two days ahead. Returns how many '
'were created.';

-- A commit reads it after its insert into the ledger: the lock of that insert keeps prune_ledger
-- from dropping a partition until the commit ends.
CREATE FUNCTION login_ingest.ledger_start() RETURNS timestamptz
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (max(day) + 1)::timestamp AT TIME ZONE 'UTC' FROM login_ingest.dropped_ledger
$$;
GRANT EXECUTE ON FUNCTION login_ingest.ledger_start TO login_ingest_loader;
GRANT EXECUTE ON FUNCTION login_ingest.ledger_start TO login_ingest_recovery, login_ingest_auditor;
COMMENT ON FUNCTION login_ingest.ledger_start IS
'Returns the send time from which on the ledger has every committed message. Null if none was '
'dropped.';

-- Locks out all other commits until the transaction ends, so that each sees the messages of the
-- other. Reads the whole ledger.
CREATE FUNCTION login_ingest.known_messages(p_message_ids text[]) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE ONLY login_ingest.ledger IN SHARE ROW EXCLUSIVE MODE;
    RETURN QUERY
    SELECT message_id FROM login_ingest.ledger WHERE message_id = ANY (p_message_ids)
    UNION SELECT message_id FROM login_ingest.moved_message WHERE message_id = ANY (p_message_ids)
    UNION SELECT message_id FROM login_ingest.quarantine WHERE message_id = ANY (p_message_ids);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.known_messages TO login_ingest_loader;
COMMENT ON FUNCTION login_ingest.known_messages IS
'Returns those of the message ids that are committed, whatever their send time.';

-- One day for each call, so that each transaction is short. SQS keeps a message for 14 days at
-- most. A day is counted while only its own partition is locked. Then the ledger is locked: the
-- lock time-out is short, because runs wait behind that lock. The send time of a row of
-- ledger_default may be wrong, so the row is kept for as many days after its commit.
CREATE FUNCTION login_ingest.prune_ledger(
    p_keep_days integer,
    OUT pruned_day date,
    OUT pruned_messages bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $$
DECLARE
    first_kept_day date := current_date - p_keep_days;
    partition_name text;
BEGIN
    IF (p_keep_days >= 15) IS NOT TRUE THEN
        RAISE EXCEPTION 'the ledger is kept for at least 15 days'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'min_ledger_days';
    END IF;
    PERFORM login_ingest.wait_for_lock('ledger');
    DELETE FROM login_ingest.moved_message WHERE moved_at < first_kept_day;
    SELECT relname, to_date(right(relname, 10), 'YYYY_MM_DD') INTO partition_name, pruned_day
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'login_ingest.ledger'::regclass AND relname ~ '^ledger_[0-9_]{10}$'
      AND relname < 'ledger_' || to_char(first_kept_day, 'YYYY_MM_DD') COLLATE "C"
    ORDER BY relname LIMIT 1;
    IF FOUND THEN
        EXECUTE format('LOCK TABLE login_ingest.%I IN SHARE ROW EXCLUSIVE MODE', partition_name);
        EXECUTE format($sql$
            WITH counted AS (
                SELECT batch_id, count(*) AS messages FROM login_ingest.%I GROUP BY batch_id
            ), recorded AS (
                INSERT INTO login_ingest.dropped_ledger AS earlier (batch_id, day, messages)
                SELECT batch_id, $1, messages FROM counted
                ON CONFLICT (batch_id, day) DO UPDATE
                SET messages = earlier.messages + excluded.messages
            )
            SELECT coalesce(sum(messages), 0)::bigint FROM counted
        $sql$, partition_name) INTO pruned_messages USING pruned_day;
        EXECUTE format('DROP TABLE login_ingest.%I', partition_name);
        RETURN;
    END IF;
    WITH deleted AS (
        DELETE FROM login_ingest.ledger_default AS late
        WHERE sent_at < first_kept_day AND NOT EXISTS (
            SELECT FROM login_ingest.batch
            WHERE batch.batch_id = late.batch_id AND committed_at >= first_kept_day
        ) RETURNING batch_id, sent_at::date AS day
    ), counted AS (
        SELECT batch_id, day, count(*) AS messages FROM deleted GROUP BY batch_id, day
    ), recorded AS (
        INSERT INTO login_ingest.dropped_ledger AS earlier (batch_id, day, messages)
        SELECT batch_id, day, messages FROM counted
        ON CONFLICT (batch_id, day) DO UPDATE SET messages = earlier.messages + excluded.messages
    )
    SELECT max(day), sum(messages)::bigint INTO pruned_day, pruned_messages FROM counted;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.prune_ledger TO login_ingest_loader, login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.prune_ledger IS
'Drops the oldest day of the ledger that ended more than p_keep_days ago, and records its messages '
'by batch. Returns the day and the number of its messages, and null if no day is that old. Raises '
'min_ledger_days for less than 15 days.';

SELECT login_ingest.create_ledger_partitions();

RESET ROLE;
