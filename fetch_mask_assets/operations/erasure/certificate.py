"""The certificate of an erasure: counts, and nothing that identifies a subject."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fetch_mask_assets.errors import FetchMaskError

SELF_REPORTED = ("still_matching", "unreadable")
"""The counts of a certificate that the command reports; the database counts all others."""


class ErasureUnverifiedError(FetchMaskError):
    """An erasure was performed and is not verified; names the counts that are not zero."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A row of `login_ingest.erasure`.

    Counted by the database: `logins` are rows of user_logins that lost a token or were deleted,
    `links` and `matches` (of an upgrade from MD5) and `quarantined` messages were deleted,
    `requests` to unmask lost a token. After the erasure, `remaining` rows, links, matches and
    requests still have a subject, `unsearched_rows` rows are under keys for which the command
    gave no token of each subject, and `quarantine_size` messages are in the quarantine. None
    until then.

    Reported by the command, which alone opens sealed bodies and has the keysets: `still_matching`
    of the sealed messages have a subject, and `unreadable` messages and rows could not be examined.
    """

    erasure_id: str
    started_at: datetime
    actor: str
    kind: str
    subjects: int
    reason: str
    ticket: str
    logins: int
    links: int
    matches: int
    requests: int
    quarantined: int
    remaining: int | None
    unsearched_rows: int | None
    quarantine_size: int | None
    still_matching: int | None
    unreadable: int
    finished_at: datetime | None
    verified: bool


def require_verified(certificate: Certificate) -> None:
    """Refuse a certificate that is not verified.

    Raises:
        ErasureUnverifiedError: subjects may be left.
    """
    if certificate.verified:
        return
    raise ErasureUnverifiedError(
        f"the erasure is not verified. Still found: {certificate.remaining} rows, links, matches or"
        f" requests, and {certificate.still_matching} quarantined messages."
        f" {certificate.unreadable} quarantined messages or rows could not be opened, or arrived"
        f" during the erasure. {certificate.unsearched_rows} rows are under keys for which fewer"
        " tokens than values were given. Repeat the command to erase arrivals. Messages and rows"
        " that cannot be opened need the keyset that they were written with, or `fetch-mask"
        " quarantine discard`."
    )
