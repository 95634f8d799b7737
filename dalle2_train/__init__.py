"""dalle2-train: train DALL·E 2 (unCLIP) models from image–text shards to a released model."""

__version__ = "0.1.0"
