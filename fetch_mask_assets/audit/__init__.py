"""The hash-chained audit: its rules and its table."""
