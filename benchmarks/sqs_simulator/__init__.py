"""An SQS server in memory for tests and benchmarks: quick, with faults on demand."""
