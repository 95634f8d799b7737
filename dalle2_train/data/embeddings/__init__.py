"""Embeddings beside shards, in columns: written once by a CLIP, read in ranges, paired with samples by key."""
