"""Tests of the product: real servers, real runs, real processes."""
