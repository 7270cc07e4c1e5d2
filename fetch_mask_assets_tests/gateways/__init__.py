"""Tests of the gateways, against a real Postgres and a real SQS server."""
