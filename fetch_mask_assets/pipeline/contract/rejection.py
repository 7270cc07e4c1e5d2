"""The reasons for rejecting a message: a code and a field, never the content."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The rule that a message broke."""

    BODY_TOO_LONG = "body_too_long"
    NOT_JSON = "not_json"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    NESTED_TOO_DEEP = "nested_too_deep"
    DUPLICATE_KEY = "duplicate_key"
    NOT_AN_OBJECT = "not_an_object"
    MISSING = "missing"
    NULL = "null"
    WRONG_TYPE = "wrong_type"
    BLANK = "blank"
    TOO_LONG = "too_long"
    CONTROL_CHARACTER = "control_character"
    NOT_UNICODE = "not_unicode"
    NOT_AN_IP = "not_an_ip"
    REPEATS_MASKED_VALUE = "repeats_masked_value"
    REFUSED_BY_DATABASE = "refused_by_database"
    BREAKS_MASKING_RULE = "breaks_masking_rule"
    OLDER_THAN_LEDGER = "older_than_ledger"


@dataclass(frozen=True, slots=True)
class Rejection:
    """The first rule that a message broke, and the field that broke it if it was one."""

    reason: Reason
    field: str | None = None


class RejectedError(Exception):
    """Carries a rejection out of a decoder; `decode_login_event` catches it."""

    def __init__(self, reason: Reason, field: str | None = None) -> None:
        """Keeps the code and the field; there is nothing else to keep."""
        super().__init__(reason.value)
        self.rejection = Rejection(reason, field)
