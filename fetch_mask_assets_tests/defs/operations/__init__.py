"""Tests of fetch_mask_assets.defs.operations."""
