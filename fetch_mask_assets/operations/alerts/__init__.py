"""Alerts: their texts, their state and their destinations."""
