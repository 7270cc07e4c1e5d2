"""Tests of fetch_mask_assets.keys."""
