"""SQS: its endpoint, protocol and requests, and the messages that it delivers."""
