"""Tests of the pure domain: values in, values out; no server, no file but the vectors."""
