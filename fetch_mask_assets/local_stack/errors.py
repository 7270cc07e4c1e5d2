"""The error of the local stack."""

from __future__ import annotations

from fetch_mask_assets.errors import FetchMaskError


class LocalStackError(FetchMaskError):
    """A part of the local stack cannot be started, stopped or set up; states the remedy."""
