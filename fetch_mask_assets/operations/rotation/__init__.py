"""Key rotation and re-masking."""
