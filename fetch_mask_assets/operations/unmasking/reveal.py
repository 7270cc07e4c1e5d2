"""The originals of tokens, once the database has recorded that they are revealed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.masker import FieldMasker


@dataclass(frozen=True, slots=True)
class RevealedToken:
    """A token with its original, or with the error that refused it; one of the two is None."""

    token: str
    original: str | None = field(default=None, repr=False)
    error: str | None = None


def reveal_tokens(
    tokens: Iterable[str], maskers: Sequence[FieldMasker]
) -> tuple[RevealedToken, ...]:
    """Unmask each token by itself; a refused token does not stop the others."""
    return tuple(_reveal(token, maskers) for token in tokens)


def _reveal(token: str, maskers: Sequence[FieldMasker]) -> RevealedToken:
    masker = next((each for each in maskers if token.startswith(each.field.token_prefix)), None)
    if masker is None:
        names = " or ".join(each.field.name for each in maskers)
        return RevealedToken(token, error=f"not a token of {names}.")
    try:
        return RevealedToken(token, original=masker.unmask(token))
    except TokenError as error:
        return RevealedToken(token, error=str(error))
