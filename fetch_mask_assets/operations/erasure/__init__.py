"""Erasure of subjects, with certificates."""
