"""Dagster's definitions: assets, checks, jobs, sensors, schedules, resources.

Each calls one use case of `pipeline` or `operations`, and reports its numbers.
"""
