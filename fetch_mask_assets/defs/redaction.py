"""Keeps values out of what Dagster stores of a failure."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.masking.addresses import addresses_in


class UnexpectedError(FetchMaskError):
    """An unexpected failure, without its text, which may hold values."""


@contextmanager
def redact_errors(stage: str) -> Iterator[None]:
    """Passes the product's errors on, and replaces others by their class and place.

    Other exceptions may quote the value that they failed on, and Dagster stores their texts. One of
    the product's errors is replaced as well if it holds an IP address.
    """
    try:
        yield
    except FetchMaskError as error:
        if addresses_in(str(error)):
            raise _withheld(stage, error) from None
        raise
    except Exception as error:  # noqa: BLE001 (no text of any error may pass)
        raise _withheld(stage, error) from None


def _withheld(stage: str, error: Exception) -> UnexpectedError:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return UnexpectedError(
        f"{stage} failed with {type(error).__name__} in {place.name}"
        f" ({Path(place.filename).name}, line {place.lineno})."
        " Its text is withheld, since it may hold values. Nothing is lost: messages that are"
        " not committed go back to the queue."
    )
