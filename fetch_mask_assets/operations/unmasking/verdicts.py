"""The verdicts of the database on unmasking and finding, and the errors for its refusals.

The functions of `postgres/schema/11_unmasking.sql` decide and record; no decision is made here.
"""

from __future__ import annotations

from enum import StrEnum

from fetch_mask_assets.errors import FetchMaskError

MAX_REASON_LENGTH = 500
"""In characters; of a reason and of a ticket."""


class UnmaskRefusedError(FetchMaskError):
    """A request, an approval, a reveal or a find was refused; names the rule."""


class Verdict(StrEnum):
    """The decision of the database, which it has recorded."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REVEALED = "revealed"
    FOUND = "found"
    WITHDRAWN = "withdrawn"
    ALREADY_WITHDRAWN = "already_withdrawn"
    INVALID_TOKENS = "invalid_tokens"
    REASON_REQUIRED = "reason_required"
    LIMIT_EXCEEDED = "limit_exceeded"
    FIND_LIMIT_EXCEEDED = "find_limit_exceeded"
    DAILY_LIMIT_EXCEEDED = "daily_limit_exceeded"
    UNKNOWN_REQUEST = "unknown_request"
    OWN_REQUEST = "own_request"
    SECOND_PERSON_REQUIRED = "second_person_required"
    ALREADY_APPROVED = "already_approved"
    TOO_LONG = "too_long"
    NOT_THE_REQUESTER = "not_the_requester"
    NOT_APPROVED = "not_approved"
    EXPIRED = "expired"
    REQUEST_WITHDRAWN = "request_withdrawn"
    ERASED = "erased"


_REFUSALS = {
    Verdict.INVALID_TOKENS: "it has no tokens, or a text that is not a token.",
    Verdict.REASON_REQUIRED: "a reason and a ticket are required, each one line of at most"
    f" {MAX_REASON_LENGTH} characters.",
    Verdict.LIMIT_EXCEEDED: "it has more tokens than LOGIN_MAX_RECOVERY_VALUES or max_tokens of"
    " login_ingest.unmask_policy allows. Request fewer tokens.",
    Verdict.FIND_LIMIT_EXCEEDED: "it has more tokens than max_find_tokens of"
    " login_ingest.unmask_policy allows in one find. A value has one token under each enabled key."
    " Give fewer values.",
    Verdict.DAILY_LIMIT_EXCEEDED: "your finds of today (UTC) would exceed max_find_tokens_per_day"
    " of login_ingest.unmask_policy. Give fewer values, or continue tomorrow.",
    Verdict.UNKNOWN_REQUEST: "no request has this id. See `fetch-mask unmask list`.",
    Verdict.OWN_REQUEST: "you cannot approve your own request. Ask another member of"
    " login_ingest_recovery.",
    Verdict.SECOND_PERSON_REQUIRED: "two different people are required, and both must be members"
    " of login_ingest_recovery now.",
    Verdict.ALREADY_APPROVED: "the request is already approved, and the approval has not expired.",
    Verdict.TOO_LONG: "an approval lasts at least one minute and at most max_minutes of"
    " login_ingest.unmask_policy.",
    Verdict.NOT_THE_REQUESTER: "only the requester can reveal the originals.",
    Verdict.NOT_APPROVED: "the request is not approved. Another member of login_ingest_recovery"
    " runs `fetch-mask unmask approve`.",
    Verdict.EXPIRED: "the approval has expired. Ask for a new `fetch-mask unmask approve`.",
    Verdict.REQUEST_WITHDRAWN: "the request was withdrawn, which is final. Make a new request.",
    Verdict.ERASED: "all tokens of the request have been erased.",
}

CONSENTS = frozenset(Verdict) - _REFUSALS.keys()
"""The verdicts that are not refusals."""


def refusal(verdict: Verdict) -> UnmaskRefusedError | None:
    """Return the error for a verdict, or None if the verdict is a consent."""
    if verdict not in _REFUSALS:
        return None
    return UnmaskRefusedError(f"refused, and the refusal is recorded: {_REFUSALS[verdict]}")
