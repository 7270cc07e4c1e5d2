"""Unmask requests, and finding rows by value."""
