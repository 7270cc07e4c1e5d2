"""What an upgrade from MD5 notes is checked and recorded; links are found by their keys.

Until now a member of recovery could note any text as a digest's token. And whether the links of a
large batch were looked up or compared one with another was left to the planner's guess.
"""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import OWNER, RECOVERY

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Lengths beside the pattern: a count in it, such as {48,244}, costs a fifth of a millisecond.
_IS_ONE = """
CREATE OR REPLACE FUNCTION login_ingest.is_token(p_field text, token text) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN CASE p_field
    WHEN 'ip' THEN length(token) = 53
        AND token ~ '^ip:A[QRSTUVWXYZabcdef][A-Za-z0-9_-]+$'
    WHEN 'device_id' THEN length(token) BETWEEN 60 AND 256
        AND token ~ '^device_id:A[QRSTUVWXYZabcdef][A-Za-z0-9_-]+$'
    ELSE false
END
"""

# Where a token's link ends, by the primary key of the links, whatever the planner knows of them.
_END_OF = """(
    SELECT link.new_token FROM login_ingest.token_link AS link
    WHERE link.field = {field} AND link.old_token = {end_of}
)"""

# As it was, in what it does.
_PUT_LINKS = """
CREATE OR REPLACE FUNCTION login_ingest.upsert_links(
    p_field text, old_tokens text[], new_tokens text[]
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM login_ingest.token_link WHERE ctid = ANY (ARRAY(
        SELECT back.place FROM unnest(old_tokens, new_tokens) AS given (old_token, new_token)
        CROSS JOIN LATERAL (
            SELECT link.ctid AS place FROM login_ingest.token_link AS link
            WHERE link.field = p_field
              AND link.old_token = given.new_token AND link.new_token = given.old_token OFFSET 0
        ) AS back
    ));

    UPDATE login_ingest.token_link AS earlier SET new_token = taken.newest, linked_at = now()
    FROM (
        SELECT here.place, coalesce({newest}, given.new_token) AS newest
        FROM unnest(old_tokens, new_tokens) AS given (old_token, new_token)
        CROSS JOIN LATERAL (
            SELECT link.ctid AS place FROM login_ingest.token_link AS link
            WHERE link.field = p_field AND link.new_token = given.old_token OFFSET 0
        ) AS here
    ) AS taken
    WHERE earlier.ctid = taken.place;

    IF EXISTS (
        SELECT FROM {linked}
        WHERE present <> newest AND NOT EXISTS (
            SELECT FROM login_ingest.masking_key AS ending
            WHERE ending.keyset = p_field AND ending.retired_at IS NOT NULL
              AND ending.key_id = login_ingest.token_key(present)
        )
    ) THEN
        RAISE EXCEPTION 'a token is linked to another one already'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'one_link';
    END IF;

    INSERT INTO login_ingest.token_link (field, old_token, new_token)
    SELECT DISTINCT ON (old_token) p_field, old_token, newest
    FROM {linked}
    WHERE present IS DISTINCT FROM newest
    ORDER BY old_token
    ON CONFLICT (field, old_token) DO UPDATE
    SET new_token = excluded.new_token, linked_at = excluded.linked_at;
END $$
"""

_LINKED = """(
            SELECT given.old_token, coalesce({newest}, given.new_token) AS newest,
                   {present} AS present
            FROM unnest(old_tokens, new_tokens) AS given (old_token, new_token) OFFSET 0
        ) AS linked"""

_REPLACE_TOKENS = """
CREATE OR REPLACE FUNCTION login_ingest.replace_tokens(
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
            WHERE coalesce({old_end}, given.old_token) = coalesce({new_end}, given.new_token)
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

# The first note of a digest stays: a second one could only say that it is another value's.
_NOTE_DIGESTS = """
CREATE FUNCTION login_ingest.record_md5_matches(p_field text, digests text[], tokens text[])
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$
"""

_FUNCTIONS = {
    "is_token(text, text)": (_IS_ONE, ()),
    "upsert_links(text, text[], text[])": (_PUT_LINKS, ()),
    "replace_tokens(bigint, text[], text[], integer)": (_REPLACE_TOKENS, (RECOVERY,)),
    "record_md5_matches(text, text[], text[])": (_NOTE_DIGESTS, (RECOVERY,)),
}

# What no upgrade could have noted, and what would be noted twice.
_CLEAN_NOTES = (
    """
    DELETE FROM login_ingest.md5_match
    WHERE (login_ingest.is_token(field, new_token) AND length(digest) = 32
           AND digest ~ '^[0-9a-f]+$') IS NOT TRUE
    """,
    """
    DELETE FROM login_ingest.md5_match AS note USING login_ingest.md5_match AS first
    WHERE note.field = first.field AND note.digest = first.digest
      AND note.new_token > first.new_token
    """,
    "DROP INDEX login_ingest.md5_match_digest",
    "CREATE UNIQUE INDEX md5_match_digest ON login_ingest.md5_match (field, digest)",
    f"REVOKE INSERT, DELETE ON login_ingest.md5_match FROM {RECOVERY}",
)


def upgrade() -> None:
    """Replaces the functions, and has notes written by one."""
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for signature, (statement, callers) in _FUNCTIONS.items():
        _create_function(signature, _placed(statement, schema), callers)
    for statement in _CLEAN_NOTES:
        op.execute(statement)
    # A replay writes under keys as a run does, and holds them before it takes its turns.
    op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.lock_keys(text[], bigint[]) TO {RECOVERY}")


def _placed(statement: str, schema: str) -> str:
    newest = _END_OF.format(field="p_field", end_of="given.new_token")
    present = _END_OF.format(field="p_field", end_of="given.old_token")
    texts = {
        "{linked}": _LINKED.format(newest=newest, present=present),
        "{newest}": newest,
        "{old_end}": _END_OF.format(field="$3", end_of="given.old_token"),
        "{new_end}": _END_OF.format(field="$3", end_of="given.new_token"),
        "{schema}": schema,
    }
    for name, text in texts.items():
        statement = statement.replace(name, text)
    return statement


def _create_function(signature: str, statement: str, callers: tuple[str, ...]) -> None:
    op.get_bind().exec_driver_sql(statement.replace("%", "%%"))
    op.execute(f"ALTER FUNCTION login_ingest.{signature} OWNER TO {OWNER}")
    op.execute(f"REVOKE ALL ON FUNCTION login_ingest.{signature} FROM PUBLIC")
    for role in callers:
        op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.{signature} TO {role}")
