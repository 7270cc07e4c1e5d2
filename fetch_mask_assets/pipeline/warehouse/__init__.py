"""Committing a batch to Postgres, and readiness."""
