"""Login events from SQS to Postgres, with IPs and device ids masked on the way."""
