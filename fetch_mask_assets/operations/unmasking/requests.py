"""A request to unmask: its tokens, its reason and ticket, its state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.masking.addresses import addresses_in
from fetch_mask_assets.masking.fields import MASKED_FIELDS
from fetch_mask_assets.masking.token import parse_token
from fetch_mask_assets.operations.unmasking.verdicts import MAX_REASON_LENGTH, UnmaskRefusedError


@dataclass(frozen=True, slots=True)
class UnmaskRequest:
    """A row of `login_ingest.unmask_request`; times are by the database's clock."""

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
        """Return `waiting`, `approved`, `expired` or `withdrawn`."""
        if self.withdrawn_at is not None:
            return "withdrawn"
        if self.expires_at is None:
            return "waiting"
        return "approved" if self.expires_at > now else "expired"


class Withdrawal(NamedTuple):
    """The first withdrawal of a request, which is final."""

    withdrawn_by: str
    withdrawn_at: datetime


def parse_tokens(lines: Iterable[str], limit: int) -> tuple[str, ...]:
    """The distinct tokens on lines of text, in their order; blank lines are left out.

    Stops at one more than the limit, which the database refuses and records.

    Raises:
        UnmaskRefusedError: a line is not a token; names its number only, for it may be a raw value.
    """
    tokens = tuple(islice(_distinct_tokens(lines), limit + 1))
    if not tokens:
        raise UnmaskRefusedError("no tokens were given. Nothing was requested.")
    return tokens


def require_line_of_text(name: str, text: str) -> str:
    """A reason or a ticket, without the spaces around it.

    Raises:
        UnmaskRefusedError: it is blank, too long, more than one line, or has an IP address, which
            the audit would keep permanently.
    """
    line = text.strip()
    if not line or len(line) > MAX_REASON_LENGTH or not line.isprintable():
        raise UnmaskRefusedError(
            f"the {name} must be one line of 1 to {MAX_REASON_LENGTH} characters. Nothing was"
            " requested."
        )
    if addresses_in(line):
        raise UnmaskRefusedError(
            f"the {name} has an IP address, which the audit would keep permanently. Nothing was"
            " requested."
        )
    return line


_FIELD_NAMES = " or ".join(each.name for each in MASKED_FIELDS)


def _distinct_tokens(lines: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and not _is_token(text):
            raise UnmaskRefusedError(
                f"line {number} is not a token of {_FIELD_NAMES}. Nothing was requested."
            )
        if text and text not in seen:
            seen.add(text)
            yield text


def _is_token(text: str) -> bool:
    for each in MASKED_FIELDS:
        if text.startswith(each.token_prefix):
            try:
                parse_token(each, text)
            except TokenError:
                return False
            return True
    return False
