"""How far an upgrade from MD5 has got, and what it has found and not yet changed."""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import OWNER, RECOVERY

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_UPGRADE = """
CREATE TABLE login_ingest.md5_upgrade (
    field       text        NOT NULL,
    space       text        NOT NULL,
    range_start bigint      NOT NULL,
    range_end   bigint      NOT NULL CHECK (range_end > range_start),
    found       bigint      NOT NULL CHECK (found >= 0),
    done_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (field, space, range_start)
)
"""

# By token, because that order says nothing of the originals.
_MATCH = """
CREATE TABLE login_ingest.md5_match (
    field     text NOT NULL,
    new_token text NOT NULL,
    digest    text NOT NULL,
    PRIMARY KEY (field, new_token, digest)
)
"""

_INDEX = "CREATE INDEX md5_match_digest ON login_ingest.md5_match (field, digest)"

# A link may lead from what an old extract holds.
_ALLOW_DIGESTS = (
    "ALTER TABLE login_ingest.token_link DROP CONSTRAINT token_link_old_token_check",
    """
    ALTER TABLE login_ingest.token_link ADD CONSTRAINT token_or_md5
    CHECK (starts_with(old_token, field || ':') OR old_token ~ '^([0-9a-f]{32}|[0-9A-F]{32})$')
    """,
)

_DROP_LINKS = """
CREATE FUNCTION login_ingest.drop_md5_links() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM login_ingest.token_link WHERE old_token ~ '^([0-9a-f]{32}|[0-9A-F]{32})$';
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM login_ingest.record_audit(
        'upgrade-md5 drop-links', json_build_object('links', gone)::text);
    RETURN gone;
END $$
"""

_COMMENTS = {
    "TABLE login_ingest.md5_upgrade": "Ranges that an upgrade under way has tried.",
    "COLUMN login_ingest.md5_upgrade.range_end": "The first number after the range.",
    "CONSTRAINT token_or_md5 ON login_ingest.token_link": "A token of the field, or the MD5 of one"
    " of its values.",
    "TABLE login_ingest.md5_match": "Digests found and not yet replaced in user_logins.",
}


def upgrade() -> None:
    """Makes the two tables, lets links lead from MD5, and makes what drops such links."""
    for statement in (_UPGRADE, _MATCH, _INDEX, *_ALLOW_DIGESTS, _DROP_LINKS):
        op.execute(statement)
    for thing, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")
    op.execute("REVOKE ALL ON FUNCTION login_ingest.drop_md5_links() FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION login_ingest.drop_md5_links() TO {RECOVERY}")
    op.execute(f"ALTER FUNCTION login_ingest.drop_md5_links() OWNER TO {OWNER}")
    for table in ("md5_upgrade", "md5_match"):
        op.execute(f"ALTER TABLE login_ingest.{table} OWNER TO {OWNER}")
        op.execute(f"GRANT SELECT, INSERT, DELETE ON login_ingest.{table} TO {RECOVERY}")
