"""A Postgres and an SQS server for one checkout, for work on one machine.

Belongs here: starting, stopping and describing the two, and sample messages for them.
Does not belong here: anything that the deployed pipeline needs; only `cli` imports this package.
"""
