"""Tests of the database, against a real Postgres."""
