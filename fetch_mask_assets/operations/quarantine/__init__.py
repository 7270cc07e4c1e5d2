"""The quarantine: list, show, replay, discard, expire."""
