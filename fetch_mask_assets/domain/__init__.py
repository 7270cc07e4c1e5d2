"""What a login event, a token and a batch are: values in, values out.

Belongs here: the contract of a message, canonical forms, masking, the rules a masked batch
must keep, the account of a batch, every decision. Does not belong here: anything that reads,
writes, waits or knows Dagster, AWS or Postgres.
"""
