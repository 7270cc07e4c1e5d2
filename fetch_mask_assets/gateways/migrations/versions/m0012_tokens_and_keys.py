"""Tokens, links and keys change by functions only, which refuse what cannot be and record the rest.

The database has no keys and cannot open a token. It sees a token's form, its key id, and its links:
what it holds changes to is that readers of user_logins_linked see no difference.
"""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import (
    AUDITOR,
    LOADER,
    OWNER,
    RECOVERY,
)

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_CHANGE = """
CREATE TABLE login_ingest.remask_job (
    job_id  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action     text        NOT NULL CHECK (action IN ('remask', 'replace-digests')),
    field      text        NOT NULL CHECK (field IN ('ip', 'device_id')),
    person     text        NOT NULL DEFAULT session_user,
    began_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz,
    resumed_by bigint      REFERENCES login_ingest.remask_job,
    from_keys  bigint[]    NOT NULL DEFAULT '{}',
    to_keys    bigint[]    NOT NULL DEFAULT '{}',
    links      bigint      NOT NULL DEFAULT 0,
    changed    bigint      NOT NULL DEFAULT 0
)
"""

_REQUIRE_RECOVERY = """
CREATE FUNCTION login_ingest.require_recovery() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT login_ingest.is_recovery(session_user) THEN
        RAISE EXCEPTION 'not a member of recovery' USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$
"""

# As it was, but for seven characters: the key id ends in the seventh, whose last two bits are the
# ciphertext's. A batch has four such heads under one key.
_KEY_OF = """
CREATE OR REPLACE FUNCTION login_ingest.token_key(token text) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN CASE WHEN token ~ '^(ip|device_id):A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{5}' THEN
    ('x' || encode(substr(decode(
        translate(left(split_part(token, ':', 2), 7), '-_', '+/') || 'A', 'base64'
    ), 2, 4), 'hex'))::bit(32)::bigint
END
"""

_IS_ONE = """
CREATE FUNCTION login_ingest.is_token(p_field text, token text) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN CASE p_field
    WHEN 'ip' THEN token ~ '^ip:A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{48}$'
    WHEN 'device_id' THEN token ~ '^device_id:A[QRSTUVWXYZabcdef][A-Za-z0-9_-]{48,244}$'
    ELSE false
END
"""

# Distinct ids only: a batch has thousands of tokens under one key or two.
_KEYS_OF = """
CREATE FUNCTION login_ingest.token_keys(p_field text, tokens text[]) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM unnest(tokens) AS token
        WHERE login_ingest.is_token(p_field, token) IS NOT TRUE
    ) THEN
        RAISE EXCEPTION 'not a token of the field'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'is_a_token';
    END IF;
    RETURN ARRAY(
        SELECT DISTINCT login_ingest.token_key(head) FROM (
            SELECT DISTINCT left(token, length(p_field) + 8) AS head
            FROM unnest(tokens) AS token
        ) AS heads ORDER BY 1
    );
END $$
"""

_REQUIRE_KNOWN = """
CREATE FUNCTION login_ingest.require_known(p_keyset text, key_ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT unnest(key_ids)
        EXCEPT SELECT key_id FROM login_ingest.masking_key WHERE keyset = p_keyset
    ) THEN
        RAISE EXCEPTION 'a key that the registry does not know'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'key_is_known';
    END IF;
END $$
"""

# Shared by all who write under the keys, until they have committed; retire_key waits for them.
_LOCK_KEYS = """
CREATE FUNCTION login_ingest.lock_keys(keysets text[], key_ids bigint[])
RETURNS TABLE (keyset text, key_id bigint, is_known boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM login_ingest.masking_key AS known
    WHERE (known.keyset, known.key_id) IN (SELECT * FROM unnest(keysets, key_ids))
    ORDER BY known.keyset, known.key_id FOR SHARE;
    RETURN QUERY
    SELECT given.keyset, given.key_id, known.keyset IS NOT NULL
    FROM unnest(keysets, key_ids) AS given (keyset, key_id)
    LEFT JOIN login_ingest.masking_key AS known
           ON known.keyset = given.keyset AND known.key_id = given.key_id
    WHERE known.keyset IS NULL OR known.retired_at IS NOT NULL;
END $$
"""

_REQUIRE_USABLE = """
CREATE FUNCTION login_ingest.require_usable(p_keyset text, key_ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM login_ingest.lock_keys(
        array_fill(p_keyset, ARRAY[cardinality(key_ids)]), key_ids)) THEN
        RAISE EXCEPTION 'a key that is retired or not registered'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'key_is_in_use';
    END IF;
END $$
"""

# As it was in the first migration of links, with two differences: earlier links are taken on
# before new ones are written, so that whatever then leads elsewhere is another value's; and that
# is refused, unless it leads to a retired key's token, which nothing can be under any more.
_PUT_LINKS = """
CREATE FUNCTION login_ingest.upsert_links(p_field text, old_tokens text[], new_tokens text[])
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM login_ingest.token_link AS back
    USING unnest(old_tokens, new_tokens) AS given (old_token, new_token)
    WHERE back.field = p_field
      AND back.old_token = given.new_token AND back.new_token = given.old_token;

    UPDATE login_ingest.token_link AS earlier
    SET new_token = coalesce(newer.new_token, given.new_token), linked_at = now()
    FROM unnest(old_tokens, new_tokens) AS given (old_token, new_token)
    LEFT JOIN login_ingest.token_link AS newer
           ON newer.field = p_field AND newer.old_token = given.new_token
    WHERE earlier.field = p_field AND earlier.new_token = given.old_token;

    IF EXISTS (
        SELECT FROM unnest(old_tokens, new_tokens) AS given (old_token, new_token)
        JOIN login_ingest.token_link AS present
          ON present.field = p_field AND present.old_token = given.old_token
        LEFT JOIN login_ingest.token_link AS newer
               ON newer.field = p_field AND newer.old_token = given.new_token
        LEFT JOIN login_ingest.masking_key AS ending
               ON ending.keyset = p_field
              AND ending.key_id = login_ingest.token_key(present.new_token)
        WHERE present.new_token <> coalesce(newer.new_token, given.new_token)
          AND ending.retired_at IS NULL
    ) THEN
        RAISE EXCEPTION 'a token is linked to another one already'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'one_link';
    END IF;

    INSERT INTO login_ingest.token_link (field, old_token, new_token)
    SELECT DISTINCT ON (given.old_token)
           p_field, given.old_token, coalesce(newer.new_token, given.new_token)
    FROM unnest(old_tokens, new_tokens) AS given (old_token, new_token)
    LEFT JOIN login_ingest.token_link AS newer
           ON newer.field = p_field AND newer.old_token = given.new_token
    LEFT JOIN login_ingest.token_link AS present
           ON present.field = p_field AND present.old_token = given.old_token
    WHERE present.new_token IS DISTINCT FROM coalesce(newer.new_token, given.new_token)
    ORDER BY given.old_token
    ON CONFLICT (field, old_token) DO UPDATE
    SET new_token = excluded.new_token, linked_at = excluded.linked_at;
END $$
"""

_LINK_TOKENS = """
CREATE OR REPLACE FUNCTION login_ingest.link_tokens(
    fields text[], old_tokens text[], new_tokens text[]
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    part record;
BEGIN
    FOR part IN
        SELECT field, array_agg(old_token) AS old_tokens, array_agg(new_token) AS new_tokens
        FROM unnest(fields, old_tokens, new_tokens) AS given (field, old_token, new_token)
        GROUP BY field ORDER BY field
    LOOP
        PERFORM login_ingest.require_known(
            part.field, login_ingest.token_keys(part.field, part.old_tokens));
        PERFORM login_ingest.require_usable(
            part.field, login_ingest.token_keys(part.field, part.new_tokens));
        PERFORM login_ingest.wait_for_lock('links');
        PERFORM login_ingest.upsert_links(part.field, part.old_tokens, part.new_tokens);
    END LOOP;
    IF NOT pg_has_role(session_user, '{loader}', 'MEMBER') THEN
        PERFORM login_ingest.record_audit('links.write', json_build_object(
            'links', cardinality(old_tokens))::text);
    END IF;
END $$
"""

# What a killed change did is in the database and not in the audit yet: the next one says it.
_BEGIN_CHANGE = """
CREATE FUNCTION login_ingest.begin_remask_job(
    p_action text, p_field text, p_keys bigint[], OUT change bigint, OUT unfinished bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    left_open json;
BEGIN
    PERFORM login_ingest.require_recovery();
    PERFORM login_ingest.require_usable(p_field, p_keys);
    INSERT INTO login_ingest.remask_job (action, field, to_keys)
    VALUES (p_action, p_field, p_keys) RETURNING job_id INTO change;
    WITH killed AS (
        UPDATE login_ingest.remask_job SET resumed_by = change
        WHERE action = p_action AND field = p_field AND ended_at IS NULL
          AND resumed_by IS NULL AND job_id <> change
        RETURNING job_id AS change, person, from_keys, to_keys, links, changed AS rows
    )
    SELECT coalesce(json_agg(killed ORDER BY killed.change), '[]'), count(*)
    INTO left_open, unfinished FROM killed;
    PERFORM login_ingest.record_audit(p_action || '.begin', json_build_object(
        'change', change, 'field', p_field, 'to_keys', p_keys,
        'resumes', left_open)::text);
END $$
"""

_OPEN_CHANGE = """
CREATE FUNCTION login_ingest.open_remask_job(p_job bigint, p_action text)
RETURNS login_ingest.remask_job
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    opened login_ingest.remask_job;
BEGIN
    PERFORM login_ingest.require_recovery();
    SELECT * INTO opened FROM login_ingest.remask_job
    WHERE job_id = p_job AND action = p_action AND person = session_user
      AND ended_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no change of this person is under way'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN opened;
END $$
"""

_COUNT_CHANGE = """
CREATE FUNCTION login_ingest.add_job_counts(
    p_job bigint, old_keys bigint[], new_keys bigint[], more_links bigint, more_rows bigint
) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE login_ingest.remask_job
    SET links = links + more_links, changed = changed + more_rows,
        from_keys = ARRAY(SELECT DISTINCT unnest(from_keys || old_keys) ORDER BY 1),
        to_keys = ARRAY(SELECT DISTINCT unnest(to_keys || new_keys) ORDER BY 1)
    WHERE job_id = p_job
$$
"""

_END_CHANGE = """
CREATE FUNCTION login_ingest.finish_remask_job(p_job bigint, p_action text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    done login_ingest.remask_job;
BEGIN
    -- Repeated because the answer to the first was lost.
    IF EXISTS (SELECT FROM login_ingest.remask_job WHERE job_id = p_job
               AND person = session_user AND ended_at IS NOT NULL) THEN
        RETURN;
    END IF;
    done := login_ingest.open_remask_job(p_job, p_action);
    UPDATE login_ingest.remask_job SET ended_at = clock_timestamp()
    WHERE job_id = p_job;
    PERFORM login_ingest.record_audit(p_action || '.end', json_build_object(
        'change', p_job, 'field', done.field, 'from_keys', done.from_keys,
        'to_keys', done.to_keys, 'links', done.links, 'rows', done.changed)::text);
END $$
"""

_LINK_TOKENS_IN_JOB = """
CREATE FUNCTION login_ingest.link_tokens_in_job(
    p_job bigint, old_tokens text[], new_tokens text[]
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    doing login_ingest.remask_job := login_ingest.open_remask_job(p_job, 'remask');
BEGIN
    PERFORM login_ingest.require_bounded(old_tokens, new_tokens);
    PERFORM login_ingest.require_known(
        doing.field, login_ingest.token_keys(doing.field, old_tokens));
    PERFORM login_ingest.require_job_keys(doing, login_ingest.token_keys(doing.field, new_tokens));
    PERFORM login_ingest.wait_for_lock('links');
    PERFORM login_ingest.upsert_links(doing.field, old_tokens, new_tokens);
    PERFORM login_ingest.add_job_counts(p_job, '{}', '{}', cardinality(old_tokens), 0);
END $$
"""

_REQUIRE_BOUNDED = """
CREATE FUNCTION login_ingest.require_bounded(old_tokens text[], new_tokens text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (cardinality(old_tokens) = cardinality(new_tokens) AND cardinality(new_tokens) <= 20000)
       IS NOT TRUE THEN
        RAISE EXCEPTION 'not so many at once' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$
"""

_REQUIRE_TO = """
CREATE FUNCTION login_ingest.require_job_keys(doing login_ingest.remask_job, key_ids bigint[])
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM login_ingest.require_usable(doing.field, key_ids);
    IF NOT key_ids <@ doing.to_keys THEN
        RAISE EXCEPTION 'a token under another key than the change is to'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'key_of_job';
    END IF;
END $$
"""

# A token becomes another one only where both are at the end of the same link: nothing that the
# view shows changes. A row that somebody else has just changed is not touched.
_REPLACE_TOKENS = """
CREATE FUNCTION login_ingest.replace_tokens(
    p_job bigint, old_tokens text[], new_tokens text[], at_most integer
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    doing login_ingest.remask_job := login_ingest.open_remask_job(p_job, 'remask');
    old_keys bigint[] := login_ingest.token_keys(doing.field, old_tokens);
    replaced bigint;
BEGIN
    PERFORM login_ingest.require_bounded(old_tokens, new_tokens);
    PERFORM login_ingest.require_job_keys(doing, login_ingest.token_keys(doing.field, new_tokens));
    EXECUTE format($sql$
        WITH replacement AS (
            SELECT given.old_token, given.new_token
            FROM unnest($1, $2) AS given (old_token, new_token)
            LEFT JOIN login_ingest.token_link AS old_link
                   ON old_link.field = $3 AND old_link.old_token = given.old_token
            LEFT JOIN login_ingest.token_link AS new_link
                   ON new_link.field = $3 AND new_link.old_token = given.new_token
            WHERE coalesce(old_link.new_token, given.old_token)
                  = coalesce(new_link.new_token, given.new_token)
              AND given.old_token <> given.new_token
        ), chosen AS (
            SELECT login.tableoid AS part, login.ctid AS place, old_token, new_token
            FROM replacement JOIN {schema}.user_logins AS login ON login.%1$I = old_token
            LIMIT $4
        )
        UPDATE {schema}.user_logins AS login SET %1$I = chosen.new_token FROM chosen
        WHERE login.ctid = chosen.place AND login.tableoid = chosen.part
          AND login.%1$I = chosen.old_token
    $sql$, 'masked_' || doing.field)
    USING old_tokens, new_tokens, doing.field, least(at_most, 5000);
    GET DIAGNOSTICS replaced = ROW_COUNT;
    IF replaced > 0 THEN
        PERFORM login_ingest.add_job_counts(p_job, old_keys, '{}', 0, replaced);
    END IF;
    RETURN replaced;
END $$
"""

# `replaced` counts a digest in both letter cases as one; each spelling has its own link.
_REPLACE_DIGESTS = """
CREATE FUNCTION login_ingest.replace_digests(
    p_job bigint, at_most integer, with_links boolean,
    OUT taken bigint, OUT replaced bigint, OUT changed bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
            UPDATE {schema}.user_logins SET %1$I = new_token FROM spelled
            WHERE %1$I = old_token RETURNING old_token, new_token
        ), grouped AS (
            SELECT old_token, new_token, count(*) AS rows FROM changed GROUP BY 1, 2
        )
        SELECT coalesce(array_agg(old_token), '{}'), coalesce(array_agg(new_token), '{}'),
               count(DISTINCT lower(old_token)), coalesce(sum(rows), 0)::bigint FROM grouped
    $sql$, 'masked_' || doing.field)
    INTO old_texts, new_texts, replaced, changed USING digests, tokens;
    IF with_links THEN
        PERFORM login_ingest.upsert_links(doing.field, old_texts, new_texts);
    END IF;
    PERFORM login_ingest.add_job_counts(p_job, '{}', new_keys,
        CASE WHEN with_links THEN cardinality(old_texts) ELSE 0 END, changed);
END $$
"""

_REGISTER_KEYS = """
CREATE FUNCTION login_ingest.register_keys(
    keysets text[], key_ids bigint[], check_values bytea[]
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM login_ingest.wait_for_lock('registry');
    IF EXISTS (
        SELECT FROM unnest(keysets, key_ids, check_values) AS given (keyset, key_id, check_value)
        LEFT JOIN login_ingest.masking_key AS known
               ON (known.keyset, known.key_id) = (given.keyset, given.key_id)
               OR known.check_value = given.check_value
        WHERE (given.keyset IN ('ip', 'device_id', 'quarantine')
               AND given.key_id BETWEEN 0 AND 4294967295
               AND length(given.check_value) > 0) IS NOT TRUE
           OR (known.keyset, known.key_id, known.check_value)
              <> (given.keyset, given.key_id, given.check_value)
    ) OR EXISTS (
        SELECT FROM unnest(keysets, check_values) AS given (keyset, check_value)
        GROUP BY given.check_value HAVING count(*) > 1
    ) THEN
        RAISE EXCEPTION 'a key that conflicts with the registry'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'no_conflict';
    END IF;
    INSERT INTO login_ingest.masking_key (keyset, key_id, check_value)
    SELECT * FROM unnest(keysets, key_ids, check_values)
    ON CONFLICT (keyset, key_id) DO NOTHING;
END $$
"""

# Texts in the order of their bytes: the operators of the indexes on the tokens. Of the four
# ranges each is for one value of the two bits behind the key id.
_ROWS_UNDER = """
CREATE FUNCTION login_ingest.rows_under(p_keyset text, p_key bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    prefix bytea := decode('01' || lpad(to_hex(p_key), 8, '0'), 'hex');
    bits integer;
    low text;
    high text;
    counted bigint;
    found_rows bigint := 0;
BEGIN
    IF p_keyset = 'quarantine' THEN
        RETURN (SELECT count(*) FROM login_ingest.quarantine
                WHERE substr(sealed_body, 1, 5) = prefix AND length(sealed_body) > 5);
    END IF;
    FOREACH bits IN ARRAY ARRAY[0, 64, 128, 192] LOOP
        low := p_keyset || ':' || left(translate(encode(
            prefix || set_byte('\\x00'::bytea, 0, bits), 'base64'), '+/', '-_'), 7);
        high := left(low, -1) || chr(ascii(right(low, 1)) + 1);
        EXECUTE format(
            'SELECT count(*) FROM {schema}.user_logins WHERE %1$I ~>=~ $1 AND %1$I ~<~ $2',
            'masked_' || p_keyset) INTO counted USING low, high;
        found_rows := found_rows + counted + (
            SELECT count(*) FROM login_ingest.md5_match
            WHERE field = p_keyset AND new_token ~>=~ low AND new_token ~<~ high);
    END LOOP;
    RETURN found_rows;
END $$
"""

# First the key, which waits for all who write under it; then the count, which sees what they wrote.
_RETIRE_KEY = """
CREATE FUNCTION login_ingest.retire_key(p_keyset text, p_key bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    needed bigint;
BEGIN
    PERFORM login_ingest.require_recovery();
    PERFORM login_ingest.wait_for_lock('registry');
    PERFORM FROM login_ingest.masking_key
    WHERE keyset = p_keyset AND key_id = p_key FOR UPDATE;
    needed := login_ingest.rows_under(p_keyset, p_key);
    IF needed > 0 THEN
        RETURN needed;
    END IF;
    UPDATE login_ingest.masking_key SET retired_at = now()
    WHERE keyset = p_keyset AND key_id = p_key AND retired_at IS NULL;
    PERFORM login_ingest.record_audit('keys.retire', json_build_object(
        'keyset', p_keyset, 'key_id', p_key)::text);
    RETURN 0;
END $$
"""

_RESTORE_KEY = """
CREATE FUNCTION login_ingest.restore_key(p_keyset text, p_key bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM login_ingest.require_recovery();
    PERFORM login_ingest.wait_for_lock('registry');
    UPDATE login_ingest.masking_key SET retired_at = NULL
    WHERE keyset = p_keyset AND key_id = p_key;
    PERFORM login_ingest.record_audit('keys.restore', json_build_object(
        'keyset', p_keyset, 'key_id', p_key)::text);
END $$
"""

# What replay_messages does first, put before the line that it began with.
_REPLAY_BEGINS = "    replayed_now := 0;\n"
_REPLAY_ASKS = """
    PERFORM login_ingest.require_usable(field, login_ingest.token_keys(field, tokens)) FROM (
        SELECT 'device_id' AS field, array_agg(masked_device_id) AS tokens
        FROM jsonb_to_recordset(logins) AS l (masked_device_id text)
        WHERE masked_device_id IS NOT NULL
        UNION ALL SELECT 'ip', array_agg(masked_ip)
        FROM jsonb_to_recordset(logins) AS l (masked_ip text) WHERE masked_ip IS NOT NULL
    ) AS given WHERE tokens IS NOT NULL;
"""

_FUNCTIONS = {
    "require_recovery()": (_REQUIRE_RECOVERY, ()),
    "token_key(text)": (_KEY_OF, ()),
    "is_token(text, text)": (_IS_ONE, ()),
    "token_keys(text, text[])": (_KEYS_OF, ()),
    "require_known(text, bigint[])": (_REQUIRE_KNOWN, ()),
    "lock_keys(text[], bigint[])": (_LOCK_KEYS, (LOADER,)),
    "require_usable(text, bigint[])": (_REQUIRE_USABLE, ()),
    "upsert_links(text, text[], text[])": (_PUT_LINKS, ()),
    "link_tokens(text[], text[], text[])": (_LINK_TOKENS, (LOADER, RECOVERY)),
    "require_bounded(text[], text[])": (_REQUIRE_BOUNDED, ()),
    "require_job_keys(login_ingest.remask_job, bigint[])": (_REQUIRE_TO, ()),
    "begin_remask_job(text, text, bigint[])": (_BEGIN_CHANGE, (RECOVERY,)),
    "open_remask_job(bigint, text)": (_OPEN_CHANGE, ()),
    "add_job_counts(bigint, bigint[], bigint[], bigint, bigint)": (_COUNT_CHANGE, ()),
    "finish_remask_job(bigint, text)": (_END_CHANGE, (RECOVERY,)),
    "link_tokens_in_job(bigint, text[], text[])": (_LINK_TOKENS_IN_JOB, (RECOVERY,)),
    "replace_tokens(bigint, text[], text[], integer)": (_REPLACE_TOKENS, (RECOVERY,)),
    "replace_digests(bigint, integer, boolean)": (_REPLACE_DIGESTS, (RECOVERY,)),
    "register_keys(text[], bigint[], bytea[])": (_REGISTER_KEYS, (LOADER, RECOVERY)),
    "rows_under(text, bigint)": (_ROWS_UNDER, ()),
    "retire_key(text, bigint)": (_RETIRE_KEY, (RECOVERY,)),
    "restore_key(text, bigint)": (_RESTORE_KEY, (RECOVERY,)),
}

_REVOKED = (
    f"REVOKE UPDATE (masked_ip, masked_device_id) ON user_logins FROM {RECOVERY}",
    f"REVOKE INSERT ON login_ingest.masking_key FROM {LOADER}, {RECOVERY}",
    f"REVOKE UPDATE (retired_at) ON login_ingest.masking_key FROM {RECOVERY}",
)

_COMMENTS = {
    "TABLE login_ingest.remask_job": "Changes of many tokens at once: who, from which keys to"
    " which, how many rows. Written by functions only.",
    "COLUMN login_ingest.remask_job.ended_at": "Null while it is under way, or if it was killed.",
    "COLUMN login_ingest.remask_job.resumed_by": "The change that goes on with this one.",
    "COLUMN login_ingest.remask_job.changed": "Rows of user_logins.",
}


def upgrade() -> None:
    """Makes the functions, and revokes what they are for."""
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    op.execute(_CHANGE)
    for signature, (statement, callers) in _FUNCTIONS.items():
        placed = statement.replace("{schema}", schema).replace("{loader}", LOADER)
        _create_function(signature, placed, callers)
    _amend_replay()
    op.execute(f"ALTER TABLE login_ingest.remask_job OWNER TO {OWNER}")
    op.execute(f"GRANT SELECT ON login_ingest.remask_job TO {RECOVERY}, {AUDITOR}")
    for statement in _REVOKED:
        op.execute(statement)
    for thing, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")


def _create_function(signature: str, statement: str, callers: tuple[str, ...]) -> None:
    op.get_bind().exec_driver_sql(statement.replace("%", "%%"))
    op.execute(f"ALTER FUNCTION login_ingest.{signature} OWNER TO {OWNER}")
    op.execute(f"REVOKE ALL ON FUNCTION login_ingest.{signature} FROM PUBLIC")
    for role in callers:
        op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.{signature} TO {role}")


def _amend_replay() -> None:
    function = "'login_ingest.replay_messages(text, jsonb, jsonb, integer)'::regprocedure"
    found = op.get_bind().exec_driver_sql(f"SELECT pg_get_functiondef({function})")
    definition = str(found.scalar_one())
    if definition.count(_REPLAY_BEGINS) != 1:
        raise RuntimeError("login_ingest.replay_messages is not the one that was migrated")
    amended = definition.replace(_REPLAY_BEGINS, _REPLAY_ASKS + _REPLAY_BEGINS)
    op.get_bind().exec_driver_sql(amended.replace("%", "%%"))
