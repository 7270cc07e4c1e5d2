"""A request to unmask: what may be asked, what the database answers, what each token gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from fetch_mask_assets.errors import FetchMaskError, TokenError
from fetch_mask_assets.keys.keyset import FieldMasker
from fetch_mask_assets.masking.addresses import addresses_in
from fetch_mask_assets.masking.fields import MASKED_FIELDS
from fetch_mask_assets.masking.token import parse_token

MAX_REASON_LENGTH = 500
"""The most characters of a reason and of a ticket."""


class UnmaskRefusedError(FetchMaskError):
    """A request, an approval or a reveal was refused; says by which rule."""


class Verdict(StrEnum):
    """What the database decides, and has recorded."""

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
    Verdict.INVALID_TOKENS: "it names no token, or something that is none.",
    Verdict.REASON_REQUIRED: "it needs a reason and a ticket, each one line of at most"
    f" {MAX_REASON_LENGTH} characters.",
    Verdict.LIMIT_EXCEEDED: "it names more tokens than LOGIN_UNMASK_LIMIT or the database's"
    " unmask_policy allow: ask for fewer.",
    Verdict.FIND_LIMIT_EXCEEDED: "it looks for more tokens than the database's unmask_policy allows"
    " in one find, where a value has one under each enabled key: give fewer values.",
    Verdict.DAILY_LIMIT_EXCEEDED: "with it you would look for more tokens today, by UTC, than the"
    " database's unmask_policy allows one person.",
    Verdict.UNKNOWN_REQUEST: "there is no request of this number: see `fetch-mask unmask list`.",
    Verdict.OWN_REQUEST: "nobody approves a request of their own: ask somebody else of"
    " login_ingest_recovery.",
    Verdict.SECOND_PERSON_REQUIRED: "it takes two different people who are both members of"
    " login_ingest_recovery at this moment.",
    Verdict.ALREADY_APPROVED: "it is approved already, and the time has not run out.",
    Verdict.TOO_LONG: "an approval lasts at least a minute and no longer than the database's"
    " unmask_policy allows.",
    Verdict.NOT_THE_REQUESTER: "only the person who asked gets the originals.",
    Verdict.NOT_APPROVED: "nobody has approved it: somebody else runs `fetch-mask unmask approve`.",
    Verdict.EXPIRED: "the approval has run out: ask for another `fetch-mask unmask approve`.",
    Verdict.REQUEST_WITHDRAWN: "it was withdrawn, and is closed for good: make another request.",
    Verdict.ERASED: "all of its tokens were erased since.",
}

CONSENTS = frozenset(Verdict) - _REFUSALS.keys()
"""The verdicts that refuse nothing."""


def refusal(verdict: Verdict) -> UnmaskRefusedError | None:
    """The error that a verdict is, or None if it is a consent."""
    if verdict not in _REFUSALS:
        return None
    return UnmaskRefusedError(f"refused, and the refusal is recorded: {_REFUSALS[verdict]}")


@dataclass(frozen=True, slots=True)
class UnmaskRequest:
    """A request as the database keeps it; times are those of the database's clock."""

    request_id: int
    requested_at: datetime
    requester: str
    reason: str
    ticket: str
    tokens: Sequence[str]
    approver: str | None
    approved_at: datetime | None
    expires_at: datetime | None
    withdrawn_by: str | None
    withdrawn_at: datetime | None

    def state(self, now: datetime) -> str:
        """Whether it waits for an approval, is approved, was and is no longer, or is withdrawn."""
        if self.withdrawn_at is not None:
            return "withdrawn"
        if self.expires_at is None:
            return "waiting"
        return "approved" if self.expires_at > now else "expired"


@dataclass(frozen=True, slots=True)
class Opened:
    """A token with its original, or with the rule that refused it."""

    token: str
    original: str | None = field(default=None, repr=False)
    refused: str | None = None


def token_digest(token: str) -> str:
    """What the audit keeps of a token: whether it is this one, and not the way back."""
    return sha256(token.encode()).hexdigest()


def named_tokens(lines: Iterable[str], limit: int) -> tuple[str, ...]:
    """The tokens on lines of text, each once, in their order; blank lines are left out.

    Stops at one more than the limit: the database refuses that, and records it.

    Raises:
        UnmaskRefusedError: a line is no token; names its number, for it may be a raw value.
    """
    named: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and not _is_token(text):
            raise UnmaskRefusedError(
                f"line {number} is no token of {_FIELD_NAMES}: nothing was asked."
            )
        if text:
            named[text] = None
        if len(named) > limit:
            break
    if not named:
        raise UnmaskRefusedError("no token was named: nothing was asked.")
    return tuple(named)


def said(name: str, words: str) -> str:
    """A reason or a ticket, without spaces around it.

    Raises:
        UnmaskRefusedError: it is blank, too long, more than a line, or holds an IP address, which
            the audit would keep for ever.
    """
    text = words.strip()
    if not text or len(text) > MAX_REASON_LENGTH or not text.isprintable():
        raise UnmaskRefusedError(
            f"the {name} must be one line of 1 to {MAX_REASON_LENGTH} characters: nothing was"
            " asked."
        )
    if addresses_in(text):
        raise UnmaskRefusedError(
            f"the {name} holds an IP address, which the audit must not keep: nothing was asked."
        )
    return text


def open_tokens(tokens: Iterable[str], maskers: Sequence[FieldMasker]) -> tuple[Opened, ...]:
    """What each token gives; one that is refused does not hold up the others."""
    return tuple(_open(token, maskers) for token in tokens)


_FIELD_NAMES = " or ".join(each.name for each in MASKED_FIELDS)


def _open(token: str, maskers: Sequence[FieldMasker]) -> Opened:
    for masker in maskers:
        if token.startswith(masker.field.token_prefix):
            try:
                return Opened(token, original=masker.unmask(token))
            except TokenError as error:
                return Opened(token, refused=str(error))
    return Opened(token, refused=f"not a token of {_FIELD_NAMES}.")


def _is_token(text: str) -> bool:
    for each in MASKED_FIELDS:
        if text.startswith(each.token_prefix):
            try:
                parse_token(each, text)
            except TokenError:
                return False
            return True
    return False
