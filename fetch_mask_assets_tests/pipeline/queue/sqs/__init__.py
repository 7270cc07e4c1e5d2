"""Tests of fetch_mask_assets.pipeline.queue.sqs."""
