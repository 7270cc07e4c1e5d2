"""Measurements of the product: what it costs, beside other ways to do the same work."""
