"""Unmasking: requests, approvals, reveals, and finding rows by value."""
