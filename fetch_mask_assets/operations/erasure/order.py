"""The order of an erasure: its subjects, its reason and its ticket."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.masking.addresses import addresses_in
from fetch_mask_assets.operations.erasure.subjects import Subjects
from fetch_mask_assets.pipeline.contract.login_event import MIN_REVEALING_LENGTH


class EraseRefusedError(FetchMaskError):
    """An erasure was refused before it began; names the rule, never the value."""


@dataclass(frozen=True, slots=True)
class ErasureOrder:
    """An erasure to perform; the reason and the ticket are kept permanently."""

    erasure_id: str
    subjects: Subjects
    reason: str
    ticket: str


def require_text(reason: str, ticket: str) -> None:
    """Refuse a blank reason or ticket.

    Raises:
        EraseRefusedError: one of them is blank.
    """
    if not (reason.strip() and ticket.strip()):
        raise EraseRefusedError("--reason and --ticket must not be blank. Nothing was erased.")


def erasure_order(subjects: Subjects, reason: str, ticket: str) -> ErasureOrder:
    """A new order, with an id of its own.

    Raises:
        EraseRefusedError: the reason or the ticket is blank, or has a subject or an IP address.
    """
    require_text(reason, ticket)
    # A shorter value can be part of a ticket's number by chance.
    values = tuple(each for each in subjects.values if len(each) >= MIN_REVEALING_LENGTH)
    matches = Subjects(subjects.kind, values).matcher()
    if any(matches(text) or addresses_in(text) for text in (reason, ticket)):
        raise EraseRefusedError(
            "--reason or --ticket has a value to erase or an IP address, which would be kept"
            " permanently. Nothing was erased."
        )
    return ErasureOrder(str(uuid4()), subjects, reason, ticket)
