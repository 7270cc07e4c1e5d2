"""The command line `fetch-mask`: each command is a thin shell over gateways or a Dagster job."""
