"""The certificate of an erasure: counts, and nothing that identifies a subject."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fetch_mask_assets.errors import FetchMaskError

SELF_REPORTED = ("remaining_messages", "unreadable_rows", "unreadable_messages")
"""The counts of a certificate that the command reports; the database counts all others."""


class ErasureUnverifiedError(FetchMaskError):
    """An erasure was performed and is not verified; names the counts that are not zero."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A row of `login_ingest.erasure`.

    Erased, counted by the database: `logins` are rows of user_logins that lost a token or were
    deleted, `links`, `md5_matches` (of an upgrade from MD5) and quarantined `messages` were
    deleted, `unmask_requests` lost a token.

    After the erasure, and None until then: `remaining_rows` of user_logins, links, matches and
    requests have a subject, `unsearched_rows` are under keys for which the command gave no token
    of each subject, and `waiting_messages` are in the quarantine. Reported by the command, which
    alone opens sealed bodies and has the keysets: `remaining_messages` have a subject,
    `unreadable_rows` are under unknown keys, and `unreadable_messages` could not be opened.
    """

    erasure_id: str
    started_at: datetime
    finished_at: datetime | None
    actor: str
    kind: str
    subjects: int
    reason: str
    ticket: str
    logins: int
    links: int
    md5_matches: int
    unmask_requests: int
    messages: int
    remaining_rows: int | None
    remaining_messages: int | None
    unsearched_rows: int | None
    unreadable_rows: int | None
    unreadable_messages: int | None
    waiting_messages: int | None
    verified: bool


def require_verified(certificate: Certificate) -> None:
    """Refuse a certificate that is not verified.

    Raises:
        ErasureUnverifiedError: subjects may be left.
    """
    if certificate.verified:
        return
    raise ErasureUnverifiedError(
        f"the erasure is not verified. Still found: {certificate.remaining_rows} rows, links,"
        f" matches or requests, and {certificate.remaining_messages} quarantined messages."
        f" {certificate.unreadable_messages} quarantined messages could not be opened, or arrived"
        f" during the erasure. {certificate.unreadable_rows} rows are under keys that the keysets"
        f" do not have, {certificate.unsearched_rows} under keys for which fewer tokens than values"
        " were given. Repeat the command to erase arrivals. Messages and rows that cannot be opened"
        " need the keyset that they were written with, or `fetch-mask quarantine discard`."
    )
