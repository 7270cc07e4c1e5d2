"""The queue, the database and the keys: settings and a few verbs in the field's words.

Belongs here: talking to SQS, Postgres and wherever keysets are kept, and turning their
failures into errors without values. Does not belong here: decisions (`domain`) and Dagster.
"""
