"""Tests of fetch_mask_assets.operations.md5_upgrade."""
