"""The views that analysts query."""
