"""The login queue: batches, backlog, poison messages and dead letters; `sqs` is the service."""
