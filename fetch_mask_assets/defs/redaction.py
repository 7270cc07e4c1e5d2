"""Keeps values out of what Dagster stores of a failure."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fetch_mask_assets.domain.errors import FetchMaskError


class UnexpectedError(FetchMaskError):
    """A failure that nobody foresaw, without the text that may hold values."""


@contextmanager
def no_values(stage: str) -> Iterator[None]:
    """Lets our own errors pass, and replaces others by their kind and place.

    Texts of foreign exceptions quote what they failed on, and Dagster keeps them for good.
    """
    try:
        yield
    except FetchMaskError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, its text must not go on)
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UnexpectedError(
            f"{stage} failed with {type(error).__name__} in {place.name}"
            f" ({Path(place.filename).name}, line {place.lineno})."
            " Its text is withheld, since it may hold values. Nothing is lost: messages that are"
            " not committed go back to the queue."
        ) from None
