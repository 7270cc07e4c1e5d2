"""Keysets, the key registry and the links between tokens."""
