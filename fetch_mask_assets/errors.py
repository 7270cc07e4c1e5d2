"""The root of every error that the product raises on purpose."""


class FetchMaskError(Exception):
    """Says what happened, to what, by which rule, and what to do; never a raw value."""


class SettingError(FetchMaskError):
    """A setting is missing or is not a value it can have; names the setting."""


class KeysetError(FetchMaskError):
    """A keyset cannot be had or used; names the field and the reason, never key material."""


class NotReadyError(FetchMaskError):
    """Something that a run needs is not well; nothing was received."""


class QueueError(FetchMaskError):
    """The queue answered with an error; names the call and AWS's error code."""


class DatabaseError(FetchMaskError):
    """The database refused or could not be reached; names the SQLSTATE and the constraint."""


class RulesBrokenError(FetchMaskError):
    """A masked batch broke a masking rule and was not written; names the rules."""


class TokenError(FetchMaskError):
    """A token cannot be unmasked; names the rule that refused it."""


class AlertError(FetchMaskError):
    """An alert did not arrive; names the destination, never its address."""


class PoisonError(FetchMaskError):
    """Whatever is masked kills the process."""

    def __init__(self, tried: int) -> None:
        """Counts what was tried."""
        super().__init__(
            f"none of {tried} redelivered messages can be masked: each kills the process that"
            " tries. That is no fault of a message: look at the last change of the code, and at"
            " the memory that a run has. Nothing was written, and the messages go back."
        )
