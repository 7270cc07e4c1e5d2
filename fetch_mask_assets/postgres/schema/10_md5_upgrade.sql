-- The upgrade from MD5: digests that are found are noted first, and then replaced by tokens.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.md5_upgrade (
    field text NOT NULL REFERENCES login_ingest.masked_field,
    space text NOT NULL,
    range_start bigint NOT NULL,
    range_end bigint NOT NULL,
    found bigint NOT NULL CHECK (found >= 0),
    done_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (field, space, range_start),
    CONSTRAINT md5_upgrade_check CHECK (range_end > range_start)
);
GRANT SELECT, INSERT, DELETE ON login_ingest.md5_upgrade TO login_ingest_recovery;
COMMENT ON TABLE login_ingest.md5_upgrade IS 'Ranges that an upgrade under way has tried.';
COMMENT ON COLUMN login_ingest.md5_upgrade.space IS
'The set of values that the range is of, such as all IPv4 addresses.';
COMMENT ON COLUMN login_ingest.md5_upgrade.range_start IS 'The first number of the range.';
COMMENT ON COLUMN login_ingest.md5_upgrade.range_end IS 'The first number after the range.';
COMMENT ON COLUMN login_ingest.md5_upgrade.found IS 'Digests that the range accounts for.';

-- By token, because that order says nothing of the originals.
CREATE TABLE login_ingest.md5_match (
    field text NOT NULL REFERENCES login_ingest.masked_field,
    new_token text NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (field, new_token, digest)
);
CREATE UNIQUE INDEX md5_match_digest ON login_ingest.md5_match (field, digest);
GRANT SELECT ON login_ingest.md5_match TO login_ingest_recovery;
COMMENT ON TABLE login_ingest.md5_match IS 'Digests found and not yet replaced in user_logins.';
COMMENT ON COLUMN login_ingest.md5_match.digest IS 'The MD5, in lower case.';

-- The first note of a digest stays: a second one could only say that it is another value's.
CREATE FUNCTION login_ingest.record_md5_matches(
    p_field text,
    digests text[],
    tokens text[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    noted bigint;
BEGIN
    PERFORM login_ingest.require_recovery();
    IF cardinality(digests) IS DISTINCT FROM cardinality(tokens) OR EXISTS (
        SELECT FROM unnest(digests) AS digest
        WHERE (length(digest) = 32 AND digest ~ '^[0-9a-f]+$') IS NOT TRUE
    ) THEN
        RAISE EXCEPTION 'not an MD5' USING ERRCODE = 'check_violation', CONSTRAINT = 'is_an_md5';
    END IF;
    PERFORM login_ingest.require_usable(
        p_field, login_ingest.token_keys(p_field, tokens));
    INSERT INTO login_ingest.md5_match (field, digest, new_token)
    SELECT p_field, digest, token FROM unnest(digests, tokens) AS given (digest, token)
    ON CONFLICT (field, digest) DO NOTHING;
    GET DIAGNOSTICS noted = ROW_COUNT;
    IF noted > 0 THEN
        PERFORM login_ingest.record_audit('replace-digests.note', json_build_object(
            'field', p_field, 'digests', noted)::text);
    END IF;
    RETURN noted;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.record_md5_matches TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.record_md5_matches IS
'Notes digests with their tokens: how many are new. Two arrays of equal length.';

-- "replaced" counts a digest in both letter cases as one; each spelling has its own link.
CREATE FUNCTION login_ingest.replace_digests(
    p_job bigint,
    at_most integer,
    with_links boolean,
    OUT taken bigint,
    OUT replaced bigint,
    OUT changed bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    doing login_ingest.remask_job := login_ingest.open_remask_job(p_job, 'replace-digests');
    digests text[];
    tokens text[];
    new_keys bigint[];
    old_texts text[];
    new_texts text[];
BEGIN
    WITH gone AS (
        DELETE FROM login_ingest.md5_match WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM login_ingest.md5_match WHERE field = doing.field
            ORDER BY new_token LIMIT least(at_most, 20000)
        )) RETURNING new_token, digest
    )
    SELECT coalesce(array_agg(digest), '{}'), coalesce(array_agg(new_token), '{}'), count(*)
    INTO digests, tokens, taken FROM gone;
    IF EXISTS (SELECT FROM unnest(digests) AS digest WHERE digest !~ '^[0-9a-f]{32}$') THEN
        RAISE EXCEPTION 'not an MD5' USING ERRCODE = 'check_violation', CONSTRAINT = 'is_an_md5';
    END IF;
    new_keys := login_ingest.token_keys(doing.field, tokens);
    PERFORM login_ingest.require_usable(doing.field, new_keys);
    IF with_links THEN
        PERFORM login_ingest.wait_for_lock('links');
    END IF;
    EXECUTE format($sql$
        WITH spelled AS (
            SELECT digest AS old_token, new_token FROM unnest($1, $2) AS _ (digest, new_token)
            UNION SELECT upper(digest), new_token FROM unnest($1, $2) AS _ (digest, new_token)
        ), changed AS (
            UPDATE %2$s SET %1$I = new_token FROM spelled
            WHERE %1$I = old_token RETURNING old_token, new_token
        ), grouped AS (
            SELECT old_token, new_token, count(*) AS rows FROM changed GROUP BY 1, 2
        )
        SELECT coalesce(array_agg(old_token), '{}'), coalesce(array_agg(new_token), '{}'),
               count(DISTINCT lower(old_token)), coalesce(sum(rows), 0)::bigint FROM grouped
    $sql$, login_ingest.token_column(doing.field), login_ingest.user_logins())
    INTO old_texts, new_texts, replaced, changed USING digests, tokens;
    IF with_links THEN
        PERFORM login_ingest.upsert_links(doing.field, old_texts, new_texts);
    END IF;
    PERFORM login_ingest.add_job_counts(p_job, '{}', new_keys,
        CASE WHEN with_links THEN cardinality(old_texts) ELSE 0 END, changed);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.replace_digests TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.replace_digests IS
'Takes so many noted digests and replaces them in user_logins by their tokens.';

CREATE FUNCTION login_ingest.drop_md5_links() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM login_ingest.token_link WHERE old_token ~ '^([0-9a-f]{32}|[0-9A-F]{32})$';
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.record_audit(
        'upgrade-md5 drop-links', json_build_object('links', gone)::text);
    RETURN gone;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.drop_md5_links TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.drop_md5_links IS 'Deletes the links from digests: how many.';

RESET ROLE;
