"""Dagster's pages as an engineer sees them, in a real browser."""
