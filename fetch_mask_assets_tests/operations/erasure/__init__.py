"""Tests of fetch_mask_assets.operations.erasure."""
