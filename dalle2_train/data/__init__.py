"""Shards become samples, samples become batches."""

from dalle2_train.data.samples import Sample, collect

__all__ = ["Sample", "collect"]
