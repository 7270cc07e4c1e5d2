"""Tests of what Dagster runs, in real runs."""
