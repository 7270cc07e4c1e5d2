"""Keeps values out of what Dagster stores of a failure."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.masking.addresses import addresses_in


class UnexpectedError(FetchMaskError):
    """A failure that nobody foresaw, without the text that may hold values."""


@contextmanager
def redact_errors(stage: str) -> Iterator[None]:
    """Lets our own errors pass, and replaces others by their kind and place.

    Texts of foreign exceptions quote what they failed on, and Dagster keeps them for good. One of
    ours is replaced as well if an IP address stands in it: none has a reason to name one.
    """
    try:
        yield
    except FetchMaskError as error:
        if addresses_in(str(error)):
            raise _withheld(stage, error) from None
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, its text must not go on)
        raise _withheld(stage, error) from None


def _withheld(stage: str, error: Exception) -> UnexpectedError:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return UnexpectedError(
        f"{stage} failed with {type(error).__name__} in {place.name}"
        f" ({Path(place.filename).name}, line {place.lineno})."
        " Its text is withheld, since it may hold values. Nothing is lost: messages that are"
        " not committed go back to the queue."
    )
