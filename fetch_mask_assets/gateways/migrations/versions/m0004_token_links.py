"""Links from old tokens to new ones, and the view under which equal stays equal."""

from __future__ import annotations

from alembic import op

from fetch_mask_assets.gateways.migrations.versions.m0002_roles import (
    ANALYST,
    LOADER,
    OWNER,
    RECOVERY,
)

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LINK = """
CREATE TABLE login_ingest.token_link (
    field     text        NOT NULL,
    old_token text        NOT NULL,
    new_token text        NOT NULL,
    linked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (field, old_token),
    CONSTRAINT token_link_old_token_check CHECK (starts_with(old_token, field || ':')),
    CONSTRAINT token_link_new_token_check CHECK (starts_with(new_token, field || ':')),
    CONSTRAINT two_tokens CHECK (old_token <> new_token)
)
"""

_LINK_INDEX = "CREATE INDEX token_link_new_token ON login_ingest.token_link (field, new_token)"

# The tokens of one key share a prefix, which only this order of text finds.
_TOKEN_INDEXES = (
    "CREATE INDEX user_logins_masked_ip ON user_logins (masked_ip text_pattern_ops)",
    "CREATE INDEX user_logins_masked_device_id ON user_logins (masked_device_id text_pattern_ops)",
)

# A value's links all end at one token, which has none itself. Three things keep it so:
# - one writer at a time: two with different primary keys would link to each other's token;
# - a link away from the token that a writer now links to goes, if the writer knows where it led
#   (its keyset has that key, and another primary), and is followed if not (a newer keyset's);
# - links that ended at a token which is old now are taken on.
_LINK_TOKENS = """
CREATE FUNCTION login_ingest.link_tokens(fields text[], old_tokens text[], new_tokens text[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = login_ingest, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7264040);
    DELETE FROM token_link AS back
    USING unnest(fields, old_tokens, new_tokens) AS given (field, old_token, new_token)
    WHERE back.field = given.field
      AND back.old_token = given.new_token AND back.new_token = given.old_token;

    INSERT INTO token_link (field, old_token, new_token)
    SELECT DISTINCT ON (given.field, given.old_token)
           given.field, given.old_token, coalesce(newer.new_token, given.new_token)
    FROM unnest(fields, old_tokens, new_tokens) AS given (field, old_token, new_token)
    LEFT JOIN token_link AS newer
           ON newer.field = given.field AND newer.old_token = given.new_token
    LEFT JOIN token_link AS present
           ON present.field = given.field AND present.old_token = given.old_token
    WHERE present.new_token IS DISTINCT FROM coalesce(newer.new_token, given.new_token)
    ORDER BY given.field, given.old_token
    ON CONFLICT (field, old_token) DO UPDATE
    SET new_token = excluded.new_token, linked_at = excluded.linked_at;

    UPDATE token_link AS earlier
    SET new_token = newest.new_token, linked_at = now()
    FROM unnest(fields, old_tokens) AS given (field, old_token)
    JOIN token_link AS newest USING (field, old_token)
    WHERE earlier.field = given.field AND earlier.new_token = given.old_token;
END $$
"""

# The columns that readers of user_logins know, and no others that a table may have.
_LINKED_VIEW = """
CREATE VIEW login_ingest.user_logins_linked AS
SELECT login.user_id, login.device_type,
       coalesce(ip.new_token, login.masked_ip) AS masked_ip,
       coalesce(device_id.new_token, login.masked_device_id) AS masked_device_id,
       login.locale, login.app_version, login.create_date
FROM user_logins AS login
LEFT JOIN login_ingest.token_link AS ip
       ON ip.field = 'ip' AND ip.old_token = login.masked_ip
LEFT JOIN login_ingest.token_link AS device_id
       ON device_id.field = 'device_id' AND device_id.old_token = login.masked_device_id
"""

_SIGNATURE = "login_ingest.link_tokens(text[], text[], text[])"

_COMMENTS = {
    "TABLE login_ingest.token_link": "Tokens of one value under different keys, old to newest."
    " For extracts that hold old tokens, and for the view user_logins_linked.",
    "COLUMN login_ingest.token_link.field": "The field whose tokens they are: ip or device_id.",
    "COLUMN login_ingest.token_link.old_token": "A token under another key than the newest.",
    "COLUMN login_ingest.token_link.new_token": "The token that all links of the value end at.",
    "COLUMN login_ingest.token_link.linked_at": "When the link got the end that it has.",
    "CONSTRAINT two_tokens ON login_ingest.token_link": "A token is not linked to itself.",
    "INDEX login_ingest.token_link_new_token": "Finds the links that a next rotation takes on.",
    "INDEX user_logins_masked_ip": "Finds the tokens of one key, and the rows of one token.",
    "INDEX user_logins_masked_device_id": "Finds the tokens of one key, and the rows of one token.",
    "VIEW login_ingest.user_logins_linked": "user_logins with every token at the end of its link:"
    " equal values are equal here at every moment, also while keys are rotated.",
    "COLUMN login_ingest.user_logins_linked.masked_ip": "The newest token of the IP.",
    "COLUMN login_ingest.user_logins_linked.masked_device_id": "The newest token of the device id.",
    f"FUNCTION {_SIGNATURE}": "Links old tokens to new ones; gives nothing back. Three arrays of"
    " equal length.",
}

_GRANTS = (
    f"REVOKE ALL ON FUNCTION {_SIGNATURE} FROM PUBLIC",
    f"GRANT EXECUTE ON FUNCTION {_SIGNATURE} TO {LOADER}, {RECOVERY}",
    f"GRANT SELECT ON login_ingest.user_logins_linked TO {ANALYST}, {RECOVERY}",
    f"GRANT SELECT ON login_ingest.token_link TO {ANALYST}, {RECOVERY}",
)


def upgrade() -> None:
    """Makes the links, the function that writes them, the view, and indexes on the tokens.

    The indexes hold writers off user_logins while they are made.
    """
    for statement in (_LINK, _LINK_INDEX, *_TOKEN_INDEXES, _LINK_TOKENS, _LINKED_VIEW):
        op.execute(statement)
    for thing, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")
    for statement in _GRANTS:
        op.execute(statement)
    op.execute(f"ALTER TABLE login_ingest.token_link OWNER TO {OWNER}")
    op.execute(f"ALTER VIEW login_ingest.user_logins_linked OWNER TO {OWNER}")
    op.execute(f"ALTER FUNCTION {_SIGNATURE} OWNER TO {OWNER}")
