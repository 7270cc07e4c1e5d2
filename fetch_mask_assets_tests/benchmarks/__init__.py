"""The benchmarks do the whole work that they measure; no test looks at a time."""
