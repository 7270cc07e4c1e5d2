"""The contract of a message: the event, its JSON, the reasons for rejection. Pure."""
