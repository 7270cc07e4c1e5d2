"""The login queue: limits, backlog, poison messages, dead letters, SQS."""
