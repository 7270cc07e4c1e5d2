"""Postgres: connections, locks, partitions, migrations and the schema."""
