"""The path of a message from the queue to the table."""
