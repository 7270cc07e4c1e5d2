"""A batch as frames: masking, rules and balance. Pure."""
