-- The upgrade from MD5: digests that were matched are recorded first, then replaced by tokens.

SET ROLE login_ingest_owner;

CREATE TABLE login_ingest.md5_searched_range (
    field text NOT NULL REFERENCES login_ingest.masked_field,
    search_space text NOT NULL,
    range_start bigint NOT NULL,
    range_end bigint NOT NULL,
    matched_digests bigint NOT NULL CHECK (matched_digests >= 0),
    searched_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (field, search_space, range_start),
    CONSTRAINT range_not_empty CHECK (range_end > range_start)
);
GRANT SELECT, INSERT, DELETE ON login_ingest.md5_searched_range TO login_ingest_recovery;
COMMENT ON TABLE login_ingest.md5_searched_range IS
'Ranges that an unfinished upgrade has searched.';
COMMENT ON COLUMN login_ingest.md5_searched_range.search_space IS
'Set of values of the range, such as all IPv4 addresses.';
COMMENT ON COLUMN login_ingest.md5_searched_range.range_start IS 'First number of the range.';
COMMENT ON COLUMN login_ingest.md5_searched_range.range_end IS 'First number after the range.';
COMMENT ON COLUMN login_ingest.md5_searched_range.matched_digests IS
'Number of digests that were matched in the range.';

-- The primary key orders rows by token, which does not reveal the order of the originals.
CREATE TABLE login_ingest.md5_match (
    field text NOT NULL REFERENCES login_ingest.masked_field,
    new_token text NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (field, new_token, digest)
);
CREATE UNIQUE INDEX md5_match_digest ON login_ingest.md5_match (field, digest);
GRANT SELECT ON login_ingest.md5_match TO login_ingest_recovery;
COMMENT ON TABLE login_ingest.md5_match IS
'Matched digests that are not yet replaced in user_logins.';
COMMENT ON COLUMN login_ingest.md5_match.digest IS 'MD5 in lower case.';

-- The first match of a digest stays. A second match would be a collision.
CREATE FUNCTION login_ingest.record_md5_matches(
    p_field text,
    p_digests text[],
    p_tokens text[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    recorded bigint;
BEGIN
    PERFORM login_ingest.require_recovery_member();
    IF cardinality(p_digests) IS DISTINCT FROM cardinality(p_tokens) OR EXISTS (
        SELECT FROM unnest(p_digests) AS digest
        WHERE (length(digest) = 32 AND digest ~ '^[0-9a-f]+$') IS NOT TRUE
    ) THEN
        RAISE EXCEPTION 'a text is not an MD5 in lower case'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'md5_valid';
    END IF;
    PERFORM login_ingest.require_usable_keys(
        p_field, login_ingest.token_key_ids(p_field, p_tokens));
    INSERT INTO login_ingest.md5_match (field, digest, new_token)
    SELECT p_field, digest, token FROM unnest(p_digests, p_tokens) AS input (digest, token)
    ON CONFLICT (field, digest) DO NOTHING;
    GET DIAGNOSTICS recorded = ROW_COUNT;
    IF recorded > 0 THEN
        PERFORM login_ingest.record_audit('upgrade-md5.record', json_build_object(
            'field', p_field, 'digests', recorded)::text);
    END IF;
    RETURN recorded;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.record_md5_matches TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.record_md5_matches IS
'Records digests with their tokens. Returns the number of new digests. Two arrays of equal length.';

-- digests_replaced counts a digest in both letter cases once. Each letter case has its own link.
CREATE FUNCTION login_ingest.replace_digests(
    p_job bigint,
    p_limit integer,
    p_with_links boolean,
    OUT digests_processed bigint,
    OUT digests_replaced bigint,
    OUT rows_changed bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job login_ingest.remask_job := login_ingest.lock_remask_job(p_job, 'upgrade-md5');
    digests text[];
    tokens text[];
    new_keys bigint[];
    old_texts text[];
    new_texts text[];
BEGIN
    WITH taken AS (
        DELETE FROM login_ingest.md5_match WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM login_ingest.md5_match WHERE field = job.field
            ORDER BY new_token LIMIT least(p_limit, 20000)
        )) RETURNING new_token, digest
    )
    SELECT coalesce(array_agg(digest), '{}'), coalesce(array_agg(new_token), '{}'), count(*)
    INTO digests, tokens, digests_processed FROM taken;
    IF EXISTS (SELECT FROM unnest(digests) AS digest WHERE digest !~ '^[0-9a-f]{32}$') THEN
        RAISE EXCEPTION 'a text is not an MD5 in lower case'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'md5_valid';
    END IF;
    new_keys := login_ingest.token_key_ids(job.field, tokens);
    PERFORM login_ingest.require_usable_keys(job.field, new_keys);
    IF p_with_links THEN
        PERFORM login_ingest.wait_for_lock('links');
    END IF;
    PERFORM login_ingest.wait_for_lock('logins');
    EXECUTE format($sql$
        WITH spelling AS (
            SELECT digest AS old_token, new_token FROM unnest($1, $2) AS _ (digest, new_token)
            UNION SELECT upper(digest), new_token FROM unnest($1, $2) AS _ (digest, new_token)
        ), changed AS (
            UPDATE %2$s SET %1$I = new_token FROM spelling
            WHERE %1$I = old_token RETURNING old_token, new_token
        ), grouped AS (
            SELECT old_token, new_token, count(*) AS rows FROM changed GROUP BY 1, 2
        )
        SELECT coalesce(array_agg(old_token), '{}'), coalesce(array_agg(new_token), '{}'),
               count(DISTINCT lower(old_token)), coalesce(sum(rows), 0)::bigint FROM grouped
    $sql$, login_ingest.token_column(job.field), login_ingest.logins_table())
    INTO old_texts, new_texts, digests_replaced, rows_changed USING digests, tokens;
    IF p_with_links THEN
        PERFORM login_ingest.upsert_links(job.field, old_texts, new_texts);
    END IF;
    PERFORM login_ingest.add_job_counts(p_job, '{}', new_keys,
        CASE WHEN p_with_links THEN cardinality(old_texts) ELSE 0 END, rows_changed);
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.replace_digests TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.replace_digests IS
'Replaces at most p_limit recorded digests in user_logins by their tokens.';

CREATE FUNCTION login_ingest.drop_md5_links() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    PERFORM login_ingest.wait_for_lock('links');
    DELETE FROM login_ingest.token_link WHERE old_token ~ '^([0-9a-f]{32}|[0-9A-F]{32})$';
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM login_ingest.record_audit(
        'upgrade-md5.drop-links', json_build_object('links', deleted)::text);
    RETURN deleted;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.drop_md5_links TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.drop_md5_links IS
'Deletes the links from digests. Returns their number.';

CREATE FUNCTION login_ingest.count_md5_matches_under_key(p_field text, p_from text, p_until text)
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) FROM login_ingest.md5_match
    WHERE field = p_field AND new_token ~>=~ p_from AND new_token ~<~ p_until
$$;
COMMENT ON FUNCTION login_ingest.count_md5_matches_under_key IS
'Returns the number of recorded digests with a token of a field in a range.';

-- For the erasure: a recorded match would restore the token.
CREATE FUNCTION login_ingest.erase_matches(
    p_erasure text,
    p_field text,
    p_tokens text[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    PERFORM login_ingest.token_column(p_field);
    DELETE FROM login_ingest.md5_match
    WHERE field = p_field AND (new_token = ANY (p_tokens) OR digest = ANY (p_tokens));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM login_ingest.record_erased(p_erasure, 'md5_matches', deleted);
    RETURN deleted;
END $$;
GRANT EXECUTE ON FUNCTION login_ingest.erase_matches TO login_ingest_recovery;
COMMENT ON FUNCTION login_ingest.erase_matches IS
'Deletes the recorded digests of tokens. Returns their number.';

CREATE FUNCTION login_ingest.count_remaining_md5_matches(p_field text, p_tokens text[])
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) FROM login_ingest.md5_match
    WHERE field = p_field AND (new_token = ANY (p_tokens) OR digest = ANY (p_tokens))
$$;
COMMENT ON FUNCTION login_ingest.count_remaining_md5_matches IS
'Returns the number of recorded digests with one of the tokens.';

RESET ROLE;
