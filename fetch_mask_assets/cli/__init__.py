"""The command line `fetch-mask`: each command runs one use case or one Dagster job."""
