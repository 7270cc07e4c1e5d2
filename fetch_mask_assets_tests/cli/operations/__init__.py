"""Tests of fetch_mask_assets.cli.operations."""
