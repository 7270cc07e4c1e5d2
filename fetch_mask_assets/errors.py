"""The root of every error that the product raises on purpose."""


class FetchMaskError(Exception):
    """States what happened, to what, by which rule, and the remedy; never a raw value."""


class SettingError(FetchMaskError):
    """A setting is missing or malformed; names the setting."""


class KeysetError(FetchMaskError):
    """A keyset cannot be read or used; names the field and the reason, never key material."""


class NotReadyError(FetchMaskError):
    """Something that a run needs is not ready; nothing was received."""


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
    """Every message that was tried kills the process that masks it."""

    def __init__(self, tried: int) -> None:
        """`tried` is the number of messages."""
        super().__init__(
            f"none of {tried} redelivered messages can be masked: each kills the process that"
            " masks it. The code or the memory is at fault, not the messages: check the last"
            " release and the memory of a run. Nothing was written, and the messages go back."
        )
