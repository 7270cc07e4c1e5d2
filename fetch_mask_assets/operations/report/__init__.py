"""The privacy report."""
