"""Shards become samples, samples become batches."""
