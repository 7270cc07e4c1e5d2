"""Dagster assets, jobs, sensors and schedules of the operations."""
