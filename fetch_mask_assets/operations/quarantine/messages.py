"""Quarantined messages: which ones a command selects, and what became of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.masking.addresses import addresses_in


class DiscardRefusedError(FetchMaskError):
    """The reason of a discard cannot be kept; names the rule."""


class ExpiryRefusedError(FetchMaskError):
    """The database keeps quarantined messages for longer than was requested."""


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """Selects quarantined messages by id or by reason code; all messages if both are None."""

    message_ids: tuple[str, ...] | None = None
    reason_code: str | None = None

    @property
    def parameters(self) -> list[object]:
        """The parameters of the SQL statements: the ids, the reason code."""
        return [None if self.message_ids is None else list(self.message_ids), self.reason_code]


@dataclass(frozen=True, slots=True)
class QuarantinedMessage:
    """A message that was rejected; `reason` is the code of the rule, `field` the field or None."""

    message_id: str
    reason: str
    field: str | None
    sent_at: datetime
    quarantined_at: datetime
    sealed_body: bytes = dataclass_field(repr=False)


@dataclass(frozen=True, slots=True)
class QuarantineBalance:
    """All messages that were ever quarantined, by what became of them.

    `is_balanced` is true if `quarantined` is the sum of the others.
    """

    quarantined: int
    replayed: int
    discarded: int
    expired: int
    erased: int
    waiting: int
    is_balanced: bool


def require_discard_reason(reason: str) -> None:
    """Refuse a reason that is blank or has an IP address: it is kept permanently.

    Raises:
        DiscardRefusedError: refused; nothing was discarded.
    """
    if not reason.strip():
        raise DiscardRefusedError("the reason must not be blank. Nothing was discarded.")
    if addresses_in(reason):
        raise DiscardRefusedError(
            "the reason has an IP address, which would be kept permanently. Nothing was discarded."
        )
