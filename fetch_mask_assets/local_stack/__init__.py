"""A Postgres and an SQS server of the checkout's own, for work on one machine.

Belongs here: starting, stopping and describing the two, and sample messages for them.
Does not belong here: anything that the deployed pipeline needs; nothing in the middle knows this.
"""
