"""The standing fault harness: servers that misbehave on purpose, and what must still hold."""
