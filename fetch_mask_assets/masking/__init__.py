"""Canonical forms, the masked fields and their tokens. Pure."""
