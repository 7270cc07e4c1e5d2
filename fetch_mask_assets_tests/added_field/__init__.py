"""Two masked fields and a clear one that only a scratch copy of the package declares."""
