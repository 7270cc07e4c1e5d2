"""A plain SQS server for measurements, in a process of its own."""
