"""What Dagster runs: assets, checks, jobs, sensors, schedules, resources.

Each is a thin shell: it asks a gateway for values, lets the domain decide, and reports numbers.
"""
